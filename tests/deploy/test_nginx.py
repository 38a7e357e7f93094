"""nginx.conf, as a site of Debian's nginx, before one server."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import certificate
from benchmarks.harness.process import accepts, free_port, wait_until
from tests.chat.conftest import Serve
from tests.deploy.conftest import DEPLOY, come_in_by_web, program, replaced
from tests.support.run import running

WHOLE = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    # A client on loopback is exempt from much: this says where it comes from.
    set_real_ip_from 127.0.0.0/8;
    real_ip_header proxy_protocol;
    {site}
}}
"""


def test_the_page_and_its_websocket(tmp_path: Path, serve: Serve) -> None:
    nginx = program("nginx")
    server = serve("--trust-proxy", "127.0.0.1")
    assert server.web
    tls, port = certificate.issue(tmp_path), free_port()
    changes = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl proxy_protocol",
        "/etc/sock-chat/": f"{tmp_path}/",
        r"127\.0\.0\.1:8081": f"127.0.0.1:{server.web[1]}",
    }
    site = replaced((DEPLOY / "nginx.conf").read_text(), changes)
    (tmp_path / "nginx.conf").write_text(WHOLE.format(site=site))
    command = [nginx, "-p", str(tmp_path), "-c", "nginx.conf", "-e", "stderr"]
    with running(command) as process:
        wait_until(lambda: process.poll() is not None or accepts(port), "nginx does not start")
        assert process.poll() is None, process.communicate()[1]
        come_in_by_web(port, tls, server.log.all)
