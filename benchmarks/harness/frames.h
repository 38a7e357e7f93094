/* Frames of a WebSocket, RFC 6455, as far as a load needs them: it masks what it sends, always
 * alike, and makes lines of what it receives. */

enum {
    TEXT = 1, CLOSE = 8, PING = 9, PONG = 10, /* opcodes */
    FIN = 0x80, MASKED = 0x80,
    HEADER_SIZE = 8, /* at most, mask included, of a frame of up to 65,535 bytes */
};

static const unsigned char mask[4] = {0x5a, 0xc3, 0x96, 0x0f};

/* A frame with up to 65,535 bytes; how long it is. */
static size_t write_frame(char *frame, int opcode, const char *data, size_t length)
{
    unsigned char *at = (unsigned char *)frame;

    *at++ = FIN | opcode;
    if (length < 126) {
        *at++ = MASKED | length;
    } else {
        *at++ = MASKED | 126;
        *at++ = length >> 8;
        *at++ = length;
    }
    memcpy(at, mask, sizeof mask);
    at += sizeof mask;
    for (size_t i = 0; i < length; i++)
        *at++ = data[i] ^ mask[i % sizeof mask];
    return (char *)at - frame;
}

struct frame {
    int opcode;
    size_t header, length; /* of what stands before the data, and of the data */
};

/* The frame that data begins with, if its header is there. One that no server may send, or that is
 * a part of a message, has the opcode -1. */
static bool read_header(const char *data, size_t size, struct frame *frame)
{
    const unsigned char *at = (const unsigned char *)data;

    if (size < 2)
        return false;
    int bytes = at[1] == 126 ? 2 : at[1] == 127 ? 8 : 0; /* of the length */
    frame->opcode = at[0] & FIN && !(at[0] & 0x70) && !(at[1] & MASKED) ? at[0] & 0x0f : -1;
    frame->header = 2 + bytes;
    frame->length = bytes ? 0 : at[1] & 0x7f;
    if (size < frame->header)
        return false;
    for (int i = 0; i < bytes; i++)
        frame->length = frame->length << 8 | at[2 + i];
    return true;
}

static bool begins_with(const char *text, const char *end, const char *start)
{
    size_t length = strlen(start);

    return (size_t)(end - text) >= length && memcmp(text, start, length) == 0;
}

/* Write the value of a string, which is one without escapes. NULL: it is not there. */
static char *write_value(char *out, const char **json, const char *end, const char *key)
{
    const char *value = memmem(*json, end - *json, key, strlen(key));

    if (!value)
        return NULL;
    value += strlen(key);
    *json = memchr(value, '"', end - value);
    return *json ? mempcpy(out, value, *json - value) : NULL;
}

/* The line of an event: of what is said as others hear it, of a welcome as one is greeted, of
 * whatever else "* " and its type. It is shorter than the event. */
static char *write_line(char *line, const char *event, const char *end)
{
    if (begins_with(event, end, "{\"type\":\"said\",")) {
        line = write_value(line, &event, end, "\"nick\":\"");
        if (!line || !begins_with(event, end, "\",\"text\":\""))
            return NULL;
        line = write_value(mempcpy(line, " dice: ", 7), &event, end, "\",\"text\":\"");
        if (!line || event + 2 != end)
            return NULL;
    } else if (begins_with(event, end, "{\"type\":\"welcome\",")) {
        line = write_value(mempcpy(line, "* Hola, ", 8), &event, end, "\"nick\":\"");
        line = line ? mempcpy(line, ". ", 2) : NULL;
    } else {
        line = write_value(mempcpy(line, "* ", 2), &event, end, "{\"type\":\"");
    }
    if (line)
        *line++ = '\n';
    return line;
}

/* The lines of an array of events, none of which has a brace in a string. NULL: it is none. */
static char *write_lines(char *lines, const char *json, size_t length)
{
    const char *at = json + 1, *end = json + length;

    if (!length || *json != '[')
        return NULL;
    while (at != end) {
        const char *event = at;
        int depth = 0;
        do {
            if (at == end)
                return NULL;
            depth += (*at == '{') - (*at == '}');
        } while (at++, depth);
        lines = write_line(lines, event, at);
        if (!lines || at == end || *at != (at + 1 == end ? ']' : ','))
            return NULL;
        at++;
    }
    return lines;
}
