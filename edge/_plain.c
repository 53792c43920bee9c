/* Plain heads, read and written anew at one pass: what the expressions of edge/plain.py say, and nothing more.

   Optional. Every function gives None for what it does not like; the general way of edge/head.py then decides, so this
   code can never accept what that refuses without the differential tests seeing it. It reads only inside the bytes it
   is given, keeps lines in a buffer as large as the longest head it takes, and gives objects that it made itself. */

#if !defined RULES || !defined MADE_OF
#error "Compile this by `python -m edge.compile`: it says for which rules of edge/plain.py, and with which limits."
#endif

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

enum { TOKEN = 1, HOST = 2, DIGIT = 4, MARK = 8, TARGET = 16, METHOD = 32, OF_REQUEST = 64, OF_RESPONSE = 128 };
enum { METHOD_MAX = 32, LENGTH_DIGITS_MAX = 18, HOST_MAX = 253, PORT_MAX = 65535 };

static unsigned char kind[256];
static PyObject *get;

typedef struct {
    const unsigned char *at;
    Py_ssize_t size;
} Text;

typedef struct {
    const unsigned char *at, *end; /* What is left to read. */
    Text name, value;              /* Of the line read last, white space around the value cut off. */
    char fields[HEAD_MAX];         /* The lines that are kept. */
    Py_ssize_t kept;
    int connections;
    Text digits;                   /* Of a response's length, without zeros before the first of them. */
} Lines;

static unsigned char lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

/* What stands there of one kind. */
static Text run_of(int wanted, const unsigned char *at, const unsigned char *end)
{
    Text found = {at, 0};
    while (at < end && kind[*at] & wanted)
        at++;
    found.size = at - found.at;
    return found;
}

/* The text up to the end of its line, of size -1 when no CRLF ends it or something in it may not stand there. */
static Text value_at(const unsigned char *at, const unsigned char *end)
{
    const unsigned char *stop = at < end ? memchr(at, '\r', end - at) : NULL;
    Text found = {at, -1};
    unsigned char wrong = 0;
    if (stop == NULL || end - stop < 2 || stop[1] != '\n')
        return found;
    for (; at < stop; at++) /* Without a branch, so that the compiler makes it many bytes at a time. */
        wrong |= ((*at < 0x20) & (*at != '\t')) | (*at == 0x7f);
    if (!wrong)
        found.size = stop - found.at;
    return found;
}

static int begins(const unsigned char *at, const unsigned char *end, const char *word)
{
    Py_ssize_t size = (Py_ssize_t)strlen(word);
    return end - at >= size && memcmp(at, word, size) == 0;
}

/* 1: a line was read; 0: the empty line that ends the head was; -1: it is malformed. */
static int next_line(Lines *lines)
{
    const unsigned char *end = lines->end;
    if (begins(lines->at, end, "\r\n")) {
        lines->at += 2;
        return 0;
    }
    lines->name = run_of(TOKEN, lines->at, end);
    const unsigned char *at = lines->name.at + lines->name.size;
    if (lines->name.size == 0 || at == end || *at != ':')
        return -1;
    Text value = value_at(at + 1, end);
    if (value.size < 0)
        return -1;
    lines->at = value.at + value.size + 2;
    for (; value.size && (*value.at == ' ' || *value.at == '\t'); value.size--)
        value.at++;
    while (value.size && (value.at[value.size - 1] == ' ' || value.at[value.size - 1] == '\t'))
        value.size--;
    lines->value = value;
    return 1;
}

static void keep(Lines *lines)
{
    Py_ssize_t size = lines->at - lines->name.at;
    memcpy(lines->fields + lines->kept, lines->name.at, size);
    lines->kept += size;
}

/* Whether the text is that word, in any case. */
static int is(Text text, const char *word)
{
    if (text.size != (Py_ssize_t)strlen(word))
        return 0;
    for (Py_ssize_t i = 0; i < text.size; i++)
        if (lower(text.at[i]) != (unsigned char)word[i])
            return 0;
    return 1;
}

/* Whether the name begins with that word, in any case and with any marks in place of its hyphens. */
static int resembles(Text name, const char *word)
{
    Py_ssize_t length = (Py_ssize_t)strlen(word);
    if (name.size < length)
        return 0;
    for (Py_ssize_t i = 0; i < length; i++)
        if (word[i] == '-' ? !(kind[name.at[i]] & MARK) : lower(name.at[i]) != (unsigned char)word[i])
            return 0;
    return 1;
}

/* Names with a meaning of their own; a head that has one is left to the general way. */
static const char *const request_words[] = {
    "host", "connection", "content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer", "keep-alive",
    "forwarded", "x-real-ip", "http2-settings", NULL};
static const char *const request_prefixes[] = {"proxy", "x-forwarded", "x-stagely", NULL};
static const char *const response_words[] = {
    "connection", "keep-alive", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "alt-svc",
    "clear-site-data", "x-robots-tag", "set-cookie", "origin-agent-cluster", NULL};
static const char *const response_prefixes[] = {"proxy", "x-stagely", NULL};

/* Whether the name may be read as one of these words, or begins like one of the prefixes; each list ends with NULL. */
static int is_special(Text name, const char *const *words, const char *const *prefixes)
{
    const char first = (char)lower(*name.at);
    for (; *words; words++)
        if (**words == first && name.size == (Py_ssize_t)strlen(*words) && resembles(name, *words))
            return 1;
    for (; *prefixes; prefixes++)
        if (**prefixes == first && resembles(name, *prefixes))
            return 1;
    return 0;
}

/* Whether it is the Connection field, and the only one, and asks for nothing but what is so anyway. */
static int is_kept_alive(Lines *lines)
{
    return is(lines->name, "connection") && lines->connections++ == 0 && is(lines->value, "keep-alive");
}

/* Whether the text is a colon and a port. */
static int is_port(Text text)
{
    int port = 0;
    if (text.size < 2 || text.size > 6 || *text.at != ':' || (text.size == 6 && text.at[1] == '0'))
        return 0;
    for (Py_ssize_t i = 1; i < text.size; i++) {
        if (!(kind[text.at[i]] & DIGIT))
            return 0;
        port = port * 10 + (text.at[i] - '0');
    }
    return port <= PORT_MAX;
}

/* Whether the value is surely a host, and with a port if it names one. */
static int is_host(Text value)
{
    Text name = run_of(HOST, value.at, value.at + value.size);
    if (name.size == 0 || name.size > HOST_MAX)
        return 0;
    unsigned char first = name.at[0], last = name.at[name.size - 1];
    if (first == '.' || first == '-' || last == '.' || last == '-')
        return 0;
    for (Py_ssize_t i = 1; i < name.size; i++)
        if (name.at[i] == '.' && name.at[i - 1] == '.')
            return 0;
    Text port = {name.at + name.size, value.size - name.size};
    return port.size == 0 || is_port(port);
}

/* The host in a request's lines, of size 0 when these are not plain to the last byte. */
static Text host_of(Lines *lines)
{
    Text none = {NULL, 0}, host = none;
    int found, count = 0;
    while ((found = next_line(lines)) > 0 && ++count <= FIELDS_MAX) {
        if (kind[*lines->name.at] & OF_REQUEST) {
            if (is(lines->name, "host")) {
                if (host.size || !is_host(lines->value))
                    return none;
                host = lines->value;
                continue;
            }
            if (is_kept_alive(lines))
                continue;
            if (is_special(lines->name, request_words, request_prefixes))
                return none;
        }
        keep(lines);
    }
    return found == 0 && lines->at == lines->end ? host : none;
}

static PyObject *in_lower_case(Text text)
{
    PyObject *made = PyBytes_FromStringAndSize(NULL, text.size);
    for (Py_ssize_t i = 0; made != NULL && i < text.size; i++)
        PyBytes_AS_STRING(made)[i] = (char)lower(text.at[i]);
    return made;
}

/* A tuple of that class, which must add nothing to tuples; it takes the items over, and NULL among them fails. */
static PyObject *tuple_of(PyTypeObject *class, PyObject **items, Py_ssize_t count)
{
    PyObject *made = class->tp_alloc(class, count);
#if PY_VERSION_HEX >= 0x030E0000
    if (made != NULL)
        ((PyTupleObject *)made)->ob_hash = -1; /* Not known yet; memory of zeros would say that it is 0. */
#endif
    for (Py_ssize_t i = 0; i < count; i++) {
        if (items[i] == NULL)
            Py_CLEAR(made);
        if (made == NULL)
            Py_XDECREF(items[i]);
        else
            PyTuple_SET_ITEM(made, i, items[i]);
    }
    return made;
}

static PyObject *request(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    PyTypeObject *class = count == 2 && PyType_Check(args[1]) ? (PyTypeObject *)args[1] : NULL;
    if (class == NULL || !PyBytes_Check(args[0]) || !PyType_IsSubtype(class, &PyTuple_Type) ||
        class->tp_basicsize != PyTuple_Type.tp_basicsize) {
        PyErr_SetString(PyExc_TypeError, "request(data: bytes, kind: type[tuple]) was called otherwise");
        return NULL;
    }
    const unsigned char *data = (unsigned char *)PyBytes_AS_STRING(args[0]), *end = data + PyBytes_GET_SIZE(args[0]);
    Text method = run_of(METHOD, data, end);
    if (end - data > HEAD_MAX || method.size == 0 || method.size > METHOD_MAX || *method.at == '-' ||
        !begins(method.at + method.size, end, " /"))
        Py_RETURN_NONE;
    Text target = run_of(TARGET, method.at + method.size + 1, end);
    const unsigned char *at = target.at + target.size;
    if (!begins(at, end, " HTTP/1.1\r\n") || at + 9 - data > LINE_MAX || begins(data, end, "CONNECT ") ||
        begins(data, end, "TRACE "))
        Py_RETURN_NONE;
    Lines lines;
    lines.at = at + 11, lines.end = end, lines.kept = 0, lines.connections = 0;
    Text host = host_of(&lines);
    if (host.size == 0)
        Py_RETURN_NONE;
    PyObject *items[] = {
        begins(data, end, "GET ") ? Py_NewRef(get) : PyBytes_FromStringAndSize((char *)data, method.size),
        PyBytes_FromStringAndSize((char *)target.at, target.size), in_lower_case(host), PyLong_FromLong(1),
        PyBytes_FromStringAndSize(lines.fields, lines.kept), PyLong_FromLong(0),
        Py_NewRef(Py_False), Py_NewRef(Py_False), Py_NewRef(Py_False)};
    return tuple_of(class, items, Py_ARRAY_LENGTH(items));
}

/* The number, -1 when it is not one of 1 to 18 digits. */
static long long length_of(Text value)
{
    long long length = 0;
    if (value.size < 1 || value.size > LENGTH_DIGITS_MAX)
        return -1;
    for (Py_ssize_t i = 0; i < value.size; i++) {
        if (!(kind[value.at[i]] & DIGIT))
            return -1;
        length = length * 10 + (value.at[i] - '0');
    }
    return length;
}

static Text without_zeros(Text digits)
{
    for (; digits.size > 1 && *digits.at == '0'; digits.size--)
        digits.at++;
    return digits;
}

/* The body's length by a response's lines, -1 when these are not plain. */
static long long body_of(Lines *lines)
{
    long long length = -1;
    int found;
    while ((found = next_line(lines)) > 0) {
        if (kind[*lines->name.at] & OF_RESPONSE) {
            if (is(lines->name, "content-length")) {
                if (length >= 0 || (length = length_of(lines->value)) < 0)
                    return -1;
                lines->digits = without_zeros(lines->value);
                continue;
            }
            if (is_kept_alive(lines) || is(lines->name, "keep-alive"))
                continue;
            if (is_special(lines->name, response_words, response_prefixes))
                return -1;
        }
        keep(lines);
    }
    return found == 0 ? length : -1;
}

static Text word(const char *text)
{
    Text made = {(const unsigned char *)text, (Py_ssize_t)strlen(text)};
    return made;
}

/* The answer as it goes on: its line, its fields, its length, ours, its body. */
static PyObject *answer_of(Text start, Text reason, const Lines *lines, PyObject *ours, Text body)
{
    const Text pieces[] = {
        start, word(" "), reason, word("\r\n"), {(unsigned char *)lines->fields, lines->kept}, word("Content-Length: "),
        lines->digits, word("\r\n"), {(unsigned char *)PyBytes_AS_STRING(ours), PyBytes_GET_SIZE(ours)}, word("\r\n"),
        body};
    Py_ssize_t size = 0;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(pieces); i++)
        size += pieces[i].size;
    PyObject *made = PyBytes_FromStringAndSize(NULL, size);
    char *out = made == NULL ? NULL : PyBytes_AS_STRING(made);
    for (size_t i = 0; made != NULL && i < Py_ARRAY_LENGTH(pieces); out += pieces[i++].size)
        memcpy(out, pieces[i].at, pieces[i].size);
    return made;
}

static PyObject *answer(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyBytes_Check(args[0]) || !PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "answer(data: bytes, ours: bytes) was called otherwise");
        return NULL;
    }
    const unsigned char *data = (unsigned char *)PyBytes_AS_STRING(args[0]), *end = data + PyBytes_GET_SIZE(args[0]);
    const unsigned char *at = data + 9;
    if (end - data < 14 || !begins(data, end, "HTTP/1.1 ") || at[0] < '2' || at[0] > '5' || !(kind[at[1]] & DIGIT) ||
        !(kind[at[2]] & DIGIT) || (at[3] != ' ' && at[3] != '\r'))
        Py_RETURN_NONE;
    int status = (at[0] - '0') * 100 + (at[1] - '0') * 10 + (at[2] - '0');
    Text reason = value_at(at + 3 + (at[3] == ' '), end);
    if (status == 204 || status == 304 || reason.size < 0)
        Py_RETURN_NONE;
    Lines lines;
    lines.at = reason.at + reason.size + 2, lines.kept = 0, lines.connections = 0;
    lines.end = end - data > HEAD_MAX ? data + HEAD_MAX : end;
    long long length = lines.at > lines.end ? -1 : body_of(&lines);
    if (length < 0 || length != end - lines.at)
        Py_RETURN_NONE;
    Text start = {data, 12}, body = {lines.at, end - lines.at};
    PyObject *items[] = {PyLong_FromLong(status), answer_of(start, reason, &lines, args[1], body)};
    return tuple_of(&PyTuple_Type, items, Py_ARRAY_LENGTH(items));
}

/* Both are called with the arguments as they stand, which the type of PyMethodDef cannot say. */
#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef functions[] = {
    {"request", FAST(request), METH_FASTCALL, "The request of a plain head that is all of the data, or None."},
    {"answer", FAST(answer), METH_FASTCALL, "(status, bytes for the visitor) of a plain and whole answer, or None."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "edge._plain", NULL, -1, functions};

static void mark(const char *of, int as)
{
    for (; *of; of++)
        kind[(unsigned char)*of] |= as;
}

/* A glance at a name's first letter saves the comparisons for most names. */
static void mark_initials(const char *const *words, int as)
{
    for (; *words; words++) {
        kind[(unsigned char)**words] |= as;
        kind[(unsigned char)**words - 'a' + 'A'] |= as;
    }
}

PyMODINIT_FUNC PyInit__plain(void)
{
    mark("!#$%&'*+-.^_`|~", TOKEN | MARK);
    mark("0123456789", TOKEN | HOST | DIGIT);
    mark("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", TOKEN | HOST);
    mark("_.-", HOST);
    mark("ABCDEFGHIJKLMNOPQRSTUVWXYZ-", METHOD);
    for (int c = 0x21; c < 0x7f; c++)
        kind[c] |= c == '#' ? 0 : TARGET;
    mark_initials(request_words, OF_REQUEST);
    mark_initials(request_prefixes, OF_REQUEST);
    mark_initials(response_words, OF_RESPONSE);
    mark_initials(response_prefixes, OF_RESPONSE);
    PyObject *made = PyModule_Create(&module);
    if (made == NULL || (get == NULL && (get = PyBytes_FromString("GET")) == NULL) ||
        PyModule_AddStringConstant(made, "RULES", RULES) < 0 ||
        PyModule_AddStringConstant(made, "MADE_OF", MADE_OF) < 0)
        Py_CLEAR(made);
    return made;
}
