/* Buffers that grow, and text for them. NAME is the program's. */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct buffer {
    char *data;
    size_t size, capacity;
};

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", NAME, what, strerror(errno));
    exit(1);
}

static inline void append(struct buffer *buffer, const char *data, size_t size)
{
    if (!size) /* nothing may come with a null pointer, which memcpy() must not be given */
        return;
    if (buffer->size + size > buffer->capacity) {
        buffer->capacity = buffer->capacity ? buffer->capacity : 64;
        while (buffer->size + size > buffer->capacity)
            buffer->capacity *= 2;
        buffer->data = realloc(buffer->data, buffer->capacity);
        if (!buffer->data)
            fail("realloc");
    }
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
}

/* A client that is idle costs no buffer. */
static void release(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

static struct buffer take(struct buffer *buffer)
{
    struct buffer content = *buffer;

    *buffer = (struct buffer){0};
    return content;
}

/* How many bytes the first character has; negative: so many bytes are the beginning of one that
 * does not go on as it must. Surrogates, overlong forms and what lies above U+10FFFF are none. */
static int first_character(const unsigned char *text, size_t size)
{
    unsigned char lead = text[0];
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    int length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;

    if ((lead >= 0x80 && lead < 0xC2) || lead > 0xF4)
        return -1;
    for (int i = 1; i < length; i++) {
        if ((size_t)i == size || text[i] < low || text[i] > high)
            return -i;
        low = 0x80, high = 0xBF;
    }
    return length;
}

/* Bytes that are not UTF-8 become U+FFFD, as often as Python's "replace" has it. */
static void append_text(struct buffer *buffer, const char *text, size_t size)
{
    size_t start = 0, end = 0; /* of a run of characters */

    while (end < size) {
        int length = first_character((const unsigned char *)text + end, size - end);
        if (length < 0) {
            append(buffer, text + start, end - start);
            append(buffer, "\xEF\xBF\xBD", 3);
            start = end - length;
        }
        end += abs(length);
    }
    append(buffer, text + start, end - start);
}
