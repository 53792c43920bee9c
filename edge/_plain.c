/* Plain heads, read at one pass: what the two expressions of edge/plain.py say, and nothing more.

   Optional. Every function gives None for a head it does not like; the general way then decides, so this code can never
   accept what that refuses without the differential tests seeing it. It reads only inside the bytes it is given, and
   writes only into a copy of the same size. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#ifndef RULES
#error "Compile this by `python -m edge.compile`: RULES says for which rules of edge/plain.py it was made."
#endif

enum { TOKEN = 1, VALUE = 2, HOST = 4, DIGIT = 8, MARK = 16 };
enum { LINES_MAX = 100, HOST_MAX = 253, PORT_MAX = 65535, LENGTH_DIGITS_MAX = 18 };

static unsigned char kind[256];

typedef struct {
    const unsigned char *at, *end;       /* What is left to read. */
    const unsigned char *name, *value;   /* Of the line read last, */
    Py_ssize_t name_size, value_size;    /* white space around the value cut off. */
} Lines;

/* 1: a line was read; 0: there is none left; -1: it is malformed. */
static int next_line(Lines *lines)
{
    const unsigned char *at = lines->at, *end = lines->end;
    if (at == end)
        return 0;
    lines->name = at;
    while (at < end && kind[*at] & TOKEN)
        at++;
    lines->name_size = at - lines->name;
    if (at == end || *at != ':' || lines->name_size == 0)
        return -1;
    at++;
    lines->value = at;
    while (at < end && kind[*at] & VALUE)
        at++;
    if (end - at < 2 || at[0] != '\r' || at[1] != '\n')
        return -1;
    lines->at = at + 2;
    while (lines->value < at && (*lines->value == ' ' || *lines->value == '\t'))
        lines->value++;
    while (at > lines->value && (at[-1] == ' ' || at[-1] == '\t'))
        at--;
    lines->value_size = at - lines->value;
    return 1;
}

static unsigned char lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

/* Whether the text is that word, in any case. */
static int is(const unsigned char *text, Py_ssize_t size, const char *word)
{
    if (size != (Py_ssize_t)strlen(word))
        return 0;
    for (Py_ssize_t i = 0; i < size; i++)
        if (lower(text[i]) != (unsigned char)word[i])
            return 0;
    return 1;
}

/* Whether the name begins with that word, in any case and with any marks in place of its hyphens. */
static int resembles(const unsigned char *name, Py_ssize_t size, const char *word)
{
    Py_ssize_t length = (Py_ssize_t)strlen(word);
    if (size < length)
        return 0;
    for (Py_ssize_t i = 0; i < length; i++)
        if (word[i] == '-' ? !(kind[name[i]] & MARK) : lower(name[i]) != (unsigned char)word[i])
            return 0;
    return 1;
}

/* Whether the name may be read as one of these words, or begins like one of the prefixes; each list ends with NULL. */
static int is_special(const unsigned char *name, Py_ssize_t size, const char *const *words, const char *const *prefixes)
{
    for (; *words; words++)
        if (size == (Py_ssize_t)strlen(*words) && resembles(name, size, *words))
            return 1;
    for (; *prefixes; prefixes++)
        if (resembles(name, size, *prefixes))
            return 1;
    return 0;
}

/* Names with a meaning of their own; a head that has one is left to the general way. */
static const char *const request_words[] = {
    "content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer", "keep-alive", "forwarded", "x-real-ip",
    "http2-settings", NULL};
static const char *const request_prefixes[] = {"proxy", "x-forwarded", "x-stagely", NULL};
static const char *const response_words[] = {
    "transfer-encoding", "upgrade", "te", "trailer", "alt-svc", "clear-site-data", "x-robots-tag", "set-cookie", NULL};
static const char *const response_prefixes[] = {"proxy", "x-stagely", NULL};

/* A glance that saves the comparisons for most names. */
static int may_be_special(unsigned char first)
{
    switch (lower(first)) {
    case 'a': case 'c': case 'e': case 'f': case 'h': case 'k': case 'p': case 's': case 't': case 'u': case 'x':
        return 1;
    }
    return 0;
}

/* Whether the text is a colon and a port. */
static int is_port(const unsigned char *text, Py_ssize_t size)
{
    int port = 0;
    if (text[0] != ':' || size < 2 || size > 6 || (size == 6 && text[1] == '0'))
        return 0;
    for (Py_ssize_t i = 1; i < size; i++) {
        if (!(kind[text[i]] & DIGIT))
            return 0;
        port = port * 10 + (text[i] - '0');
    }
    return port <= PORT_MAX;
}

/* The host in lower case, None when it is not surely one. */
static PyObject *host_of(const unsigned char *value, Py_ssize_t size)
{
    unsigned char text[HOST_MAX + 6];
    Py_ssize_t name_size = 0;
    if (size == 0 || size > (Py_ssize_t)sizeof text)
        Py_RETURN_NONE;
    for (Py_ssize_t i = 0; i < size; i++)
        text[i] = lower(value[i]);
    while (name_size < size && kind[text[name_size]] & HOST) {
        if (text[name_size] == '.' && name_size + 1 < size && text[name_size + 1] == '.')
            Py_RETURN_NONE;
        name_size++;
    }
    if (name_size == 0 || name_size > HOST_MAX || text[0] == '.' || text[0] == '-' || text[name_size - 1] == '.' ||
        text[name_size - 1] == '-')
        Py_RETURN_NONE;
    if (name_size < size && !is_port(text + name_size, size - name_size))
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((char *)text, size);
}

static PyObject *request_block(PyObject *self, PyObject *block)
{
    char *data;
    Py_ssize_t size, kept = 0, count = 0;
    int found, connections = 0;
    if (PyBytes_AsStringAndSize(block, &data, &size) < 0)
        return NULL;
    if (size == 0 || data[0] != '\n')
        Py_RETURN_NONE;
    Lines lines = {(unsigned char *)data + 1, (unsigned char *)data + size};
    PyObject *host = NULL, *fields = PyBytes_FromStringAndSize(NULL, size);
    if (fields == NULL)
        return NULL;
    char *out = PyBytes_AS_STRING(fields);
    while ((found = next_line(&lines)) > 0 && ++count <= LINES_MAX) {
        if (may_be_special(*lines.name)) {
            if (is(lines.name, lines.name_size, "host")) {
                if (host != NULL || (host = host_of(lines.value, lines.value_size)) == NULL || host == Py_None)
                    break;
                continue;
            }
            if (is(lines.name, lines.name_size, "connection")) {
                if (connections++ || !is(lines.value, lines.value_size, "keep-alive"))
                    break;
                continue;
            }
            if (is_special(lines.name, lines.name_size, request_words, request_prefixes))
                break;
        }
        Py_ssize_t line_size = lines.at - lines.name;
        memcpy(out + kept, lines.name, line_size);
        kept += line_size;
    }
    if (found != 0 || host == NULL || host == Py_None) {
        Py_DECREF(fields);
        Py_XDECREF(host);
        if (PyErr_Occurred())
            return NULL;
        Py_RETURN_NONE;
    }
    if (_PyBytes_Resize(&fields, kept) < 0) {
        Py_DECREF(host);
        return NULL;
    }
    return Py_BuildValue("(NN)", fields, host);
}

static PyObject *response_head(PyObject *self, PyObject *head)
{
    char *data;
    Py_ssize_t size, kept = 0;
    int found, connections = 0;
    long long length = -1;
    if (PyBytes_AsStringAndSize(head, &data, &size) < 0)
        return NULL;
    const unsigned char *at = (unsigned char *)data, *end = at + size;
    if (size < 14 || memcmp(data, "HTTP/1.1 ", 9) || at[9] < '2' || at[9] > '5' || !(kind[at[10]] & DIGIT) ||
        !(kind[at[11]] & DIGIT))
        Py_RETURN_NONE;
    int status = (at[9] - '0') * 100 + (at[10] - '0') * 10 + (at[11] - '0');
    at += 12;
    if (*at == ' ')
        at++;
    else if (*at != '\r')
        Py_RETURN_NONE;
    const unsigned char *reason = at;
    while (at < end && kind[*at] & VALUE)
        at++;
    Py_ssize_t reason_size = at - reason;
    if (end - at < 2 || at[0] != '\r' || at[1] != '\n')
        Py_RETURN_NONE;
    Lines lines = {at + 2, end};
    PyObject *fields = PyBytes_FromStringAndSize(NULL, size);
    if (fields == NULL)
        return NULL;
    char *out = PyBytes_AS_STRING(fields);
    while ((found = next_line(&lines)) > 0) {
        if (may_be_special(*lines.name)) {
            if (is(lines.name, lines.name_size, "content-length")) {
                if (length >= 0 || lines.value_size < 1 || lines.value_size > LENGTH_DIGITS_MAX)
                    break;
                length = 0;
                Py_ssize_t i = 0;
                while (i < lines.value_size && kind[lines.value[i]] & DIGIT)
                    length = length * 10 + (lines.value[i++] - '0');
                if (i < lines.value_size)
                    break;
                continue;
            }
            if (is(lines.name, lines.name_size, "connection")) {
                if (connections++ || !is(lines.value, lines.value_size, "keep-alive"))
                    break;
                continue;
            }
            if (is(lines.name, lines.name_size, "keep-alive"))
                continue;
            if (is_special(lines.name, lines.name_size, response_words, response_prefixes))
                break;
        }
        Py_ssize_t line_size = lines.at - lines.name;
        memcpy(out + kept, lines.name, line_size);
        kept += line_size;
    }
    if (found != 0 || length < 0) {
        Py_DECREF(fields);
        Py_RETURN_NONE;
    }
    if (_PyBytes_Resize(&fields, kept) < 0)
        return NULL;
    return Py_BuildValue("(iy#NL)", status, reason, reason_size, fields, length);
}

static PyMethodDef functions[] = {
    {"request_block", request_block, METH_O, "(fields, host) of a plain request's lines, or None."},
    {"response_head", response_head, METH_O, "(status, reason, fields, length) of a plain response, or None."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "edge._plain", NULL, -1, functions};

PyMODINIT_FUNC PyInit__plain(void)
{
    for (int c = 0; c < 256; c++) {
        if (c == '\t' || (c >= 0x20 && c <= 0x7e) || c >= 0x80)
            kind[c] |= VALUE;
        if (c && strchr("!#$%&'*+-.^_`|~", c))
            kind[c] |= TOKEN | MARK;
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
            kind[c] |= TOKEN;
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c && strchr("_.-", c)))
            kind[c] |= HOST;
        if (c >= '0' && c <= '9')
            kind[c] |= DIGIT;
    }
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddStringConstant(made, "RULES", RULES) < 0)
        Py_CLEAR(made);
    return made;
}
