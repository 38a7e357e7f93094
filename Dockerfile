# The chat server of stages/v5 and nothing else: no compiler, no tests, no package index.
#
#     docker build -t localhost/sock-chat .
#     docker run -p 8080:8080 -p 8081:8081 -v chat:/data localhost/sock-chat
#
# Every option is a variable of the environment; stages/v5/OPERATING.md says what it needs.

FROM docker.io/library/python:3.13-slim AS wheels
WORKDIR /source
COPY LICENSE README.md pyproject.toml setup.cfg ./
COPY lowlevel lowlevel
COPY stages/v5/sock_chat stages/v5/sock_chat
RUN pip wheel --no-cache-dir --wheel-dir /wheels '.[chat]'
# Without pip: what runs there installs nothing. The bytecode is compiled now, since whoever runs it
# cannot write there, and would compile it at every start.
RUN python -m venv --without-pip /opt/sock-chat \
    && pip --python /opt/sock-chat install --no-cache-dir --no-index /wheels/*.whl

FROM docker.io/library/python:3.13-slim
LABEL org.opencontainers.image.title="sock_chat" \
      org.opencontainers.image.description="Chat server with names, rooms, commands and history" \
      org.opencontainers.image.licenses="MIT"
COPY --from=wheels /opt/sock-chat /opt/sock-chat
RUN install -d -o 10001 -g 10001 -m 700 /data
ENV PATH=/opt/sock-chat/bin:$PATH \
    SOCK_CHAT_HOST=0.0.0.0 \
    SOCK_CHAT_DB=/data/sock_chat.db
VOLUME /data
# A number, so that an orchestrator can see that it is not root; with its group, or that is root's.
USER 10001:10001
EXPOSE 8080 8081 8443
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-m", "sock_chat.healthcheck"]
# The exec form: the server itself gets SIGTERM, not a shell that keeps it to itself.
ENTRYPOINT ["sock-chat-server"]
