/* Images to Python values in one pass: what consumer/domain/attribute_values.py does with msgspec and a loop.
 *
 * This knows the plain, well-formed grammar only. To anything else it answers NotImplemented, "not mine", and the Python
 * code decides, so that every error and every odd corner has one implementation.
 *
 * Inside, NULL without an exception means "not mine", too; with one, that a call into Python failed. What is half made is
 * dropped on the way out. Nothing is shared between calls but what is remembered, under the interpreter's lock (a
 * free-threaded Python takes one when it imports a module that does not say it can do without).
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define FORMAT 1           /* of what a Maker takes and gives; consumer/domain/compiled_values.py uses the one it knows */
#define DEEPEST 64         /* levels of nesting; DynamoDB has 32 */
#define LONGEST_NUMBER 300 /* DynamoDB writes numbers out: up to 38 digits among up to 130 zeros */
#define REMEMBERED_BITS 11
#define REMEMBERED (1 << REMEMBERED_BITS)

typedef unsigned char byte;

typedef struct {
    byte text[23], length;
    PyObject *value;
} Known;

typedef struct {
    PyObject_HEAD
    PyObject *create_decimal; /* of the context of attribute_values.py: digits and bounds are the same by construction */
    PyObject *decode_text;    /* makes a str of JSON's, with its quotes: for those with escapes */
    PyObject *find_binary;    /* gives boto3's Binary, or None when that is not made as below; called for the first B */
    PyTypeObject *binary;     /* what it gave */
    PyObject *value;          /* "value", the attribute of Binary */
    PyObject *nothing;        /* () */
    Known names[REMEMBERED], numbers[REMEMBERED]; /* by their text; a newer one takes the place of an older one */
} Maker;

typedef struct {
    const byte *at, *end;
    Maker *maker;
    int depth;
} Reader;

static PyObject *read_value(Reader *reader);

/* ---- Bytes ------------------------------------------------------------------------------------------------------ */

static inline void skip_space(Reader *reader)
{
    while (reader->at < reader->end
           && (*reader->at == ' ' || *reader->at == '\n' || *reader->at == '\r' || *reader->at == '\t'))
        reader->at++;
}

static bool pass_after_space(Reader *reader, byte expected)
{
    skip_space(reader);
    if (reader->at == reader->end || *reader->at != expected)
        return false;
    reader->at++;
    return true;
}

/* Whether this byte comes next, after any space; it is passed then. */
static inline bool pass(Reader *reader, byte expected)
{
    if (reader->at < reader->end && *reader->at == expected) {
        reader->at++;
        return true;
    }
    if (reader->at < reader->end && *reader->at > ' ')
        return false;
    return pass_after_space(reader, expected);
}

static inline bool pass_word(Reader *reader, const char *word, Py_ssize_t length)
{
    skip_space(reader);
    if (reader->end - reader->at < length || memcmp(reader->at, word, (size_t)length) != 0)
        return false;
    reader->at += length;
    return true;
}

static inline uint64_t eight(const byte *at)
{
    uint64_t word;
    memcpy(&word, at, 8);
    return word;
}

/* The first byte from here on that does not stand for itself in a string: a quote, a backslash, a control character,
 * or one that is not ASCII. Eight at a time: the lowest bit of `odd` is the high bit of the first such byte (above it
 * there may be others that are none, because of the borrow). */
static inline const byte *end_of_plain(const byte *at, const byte *end)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    for (; end - at >= 8; at += 8) {
        uint64_t word = eight(at), quote = word ^ (ones * '"'), slash = word ^ (ones * '\\');
        uint64_t odd = (word | (word - ones * 0x20) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash)) & high;
        if (odd != 0)
            return at + (__builtin_ctzll(odd) >> 3);
    }
#endif
    while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\')
        at++;
    return at;
}

/* ---- Text ------------------------------------------------------------------------------------------------------- */

/* A string that is not plain to its end: beyond ASCII, or with escapes. `at` is where the plain part ends. */
static PyObject *read_odd_text(Reader *reader, const byte *at)
{
    const byte *start = reader->at;
    bool escaped = false;
    for (; at < reader->end && *at != '"'; at++) {
        if (*at < 0x20)
            return NULL;
        if (*at == '\\') {
            escaped = true;
            if (++at == reader->end)
                return NULL;
        }
    }
    if (at == reader->end)
        return NULL;
    reader->at = at + 1;
    if (!escaped)
        return PyUnicode_DecodeUTF8((const char *)start, at - start, "strict");
    PyObject *quoted = PyBytes_FromStringAndSize((const char *)start - 1, at - start + 2);
    PyObject *text = quoted == NULL ? NULL : PyObject_CallOneArg(reader->maker->decode_text, quoted);
    Py_XDECREF(quoted);
    return text;
}

static inline PyObject *ascii(const byte *from, Py_ssize_t length)
{
    PyObject *text = PyUnicode_New(length, 127);
    if (text != NULL)
        memcpy(PyUnicode_1BYTE_DATA(text), from, (size_t)length);
    return text;
}

static PyObject *read_text(Reader *reader)
{
    if (!pass(reader, '"'))
        return NULL;
    const byte *start = reader->at, *stop = end_of_plain(start, reader->end);
    if (stop == reader->end)
        return NULL;
    if (*stop != '"')
        return read_odd_text(reader, stop);
    reader->at = stop + 1;
    return ascii(start, stop - start);
}

/* Where this text is remembered, or would be. NULL for one that is too long, and for the last bytes of all. */
static inline Known *place_of(Known *table, Reader *reader, const byte *text, Py_ssize_t length)
{
    if (length == 0 || length > (Py_ssize_t)sizeof table->text || reader->end - text < 8)
        return NULL;
    uint64_t first = eight(text), last = length < 8 ? 0 : eight(text + length - 8);
    if (length < 8)
        first &= (UINT64_C(1) << 8 * length) - 1;
    return &table[(first + last * 31) * 0x9E3779B97F4A7C15u >> (64 - REMEMBERED_BITS)];
}

static inline bool is_known(const Known *known, const byte *text, Py_ssize_t length)
{
    return known->length == length && memcmp(known->text, text, (size_t)length) == 0;
}

static inline void remember(Known *known, const byte *text, Py_ssize_t length, PyObject *value)
{
    PyObject *old = known->value;
    memcpy(known->text, text, (size_t)length);
    known->length = (byte)length;
    known->value = Py_NewRef(value);
    Py_XDECREF(old);
}

/* The name of an attribute. */
static PyObject *read_name(Reader *reader)
{
    if (!pass(reader, '"'))
        return NULL;
    const byte *start = reader->at, *stop = end_of_plain(start, reader->end);
    Py_ssize_t length = stop - start;
    if (stop == reader->end)
        return NULL;
    if (*stop != '"')
        return read_odd_text(reader, stop);
    reader->at = stop + 1;
    Known *known = place_of(reader->maker->names, reader, start, length);
    if (known != NULL && is_known(known, start, length))
        return Py_NewRef(known->value);
    PyObject *name = ascii(start, length);
    if (name != NULL && known != NULL)
        remember(known, start, length, name);
    return name;
}

/* ---- Numbers and bytes ------------------------------------------------------------------------------------------ */

static const byte *digits(const byte *at, const byte *end)
{
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at;
}

/* Whatever reads as a finite number is made by the context of attribute_values.py. */
static PyObject *read_number(Reader *reader)
{
    if (!pass(reader, '"'))
        return NULL;
    const byte *start = reader->at, *end = reader->end, *at = start, *from;
    if (at < end && *at == '-')
        at++;
    at = digits(from = at, end);
    if (at == from || at == end)
        return NULL;
    if (*at == '.') {
        at = digits(from = at + 1, end);
        if (at == from)
            return NULL;
    }
    if (at < end && (*at == 'E' || *at == 'e')) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        at = digits(from = at, end);
        if (at == from)
            return NULL;
    }
    Py_ssize_t length = at - start;
    if (at == end || *at != '"' || length > LONGEST_NUMBER)
        return NULL;
    reader->at = at + 1;
    Known *known = length > 3 ? NULL : place_of(reader->maker->numbers, reader, start, length);
    if (known != NULL && is_known(known, start, length))
        return Py_NewRef(known->value);
    PyObject *text = ascii(start, length);
    if (text == NULL)
        return NULL;
    PyObject *number = PyObject_CallOneArg(reader->maker->create_decimal, text);
    Py_DECREF(text);
    if (number != NULL && known != NULL)
        remember(known, start, length, number);
    return number;
}

static byte sextets[256]; /* of base64's letters, else 255 */

static void fill_sextets(void)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    memset(sextets, 255, sizeof sextets);
    for (int i = 0; i < 64; i++)
        sextets[(byte)letters[i]] = (byte)i;
}

static inline bool decode_group(const byte *from, byte *to)
{
    unsigned a = sextets[from[0]], b = sextets[from[1]], c = sextets[from[2]], d = sextets[from[3]];
    to[0] = (byte)(a << 2 | b >> 4);
    to[1] = (byte)(b << 4 | c >> 2);
    to[2] = (byte)(c << 6 | d);
    return (a | b | c | d) < 64;
}

/* Only what an encoder writes: whole groups, no space, no bits left over. */
static PyObject *from_base64(const byte *at, Py_ssize_t length)
{
    if (length % 4 != 0)
        return NULL;
    int padding = length == 0 || at[length - 1] != '=' ? 0 : at[length - 2] != '=' ? 1 : 2;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, length / 4 * 3 - padding);
    if (bytes == NULL)
        return NULL;
    byte *to = (byte *)PyBytes_AS_STRING(bytes);
    const byte *stop = at + length - (padding ? 4 : 0);
    bool good = true;
    for (; at < stop; at += 4, to += 3)
        good &= decode_group(at, to);
    if (padding) {
        byte letters[4] = {at[0], at[1], padding == 2 ? 'A' : at[2], 'A'}, three[3];
        good &= decode_group(letters, three) && three[2] == 0 && (padding == 1 || three[1] == 0);
        memcpy(to, three, (size_t)(3 - padding));
    }
    if (!good)
        Py_CLEAR(bytes);
    return bytes;
}

static bool found_binary(Maker *maker)
{
    if (maker->binary != NULL)
        return true;
    PyObject *found = PyObject_CallNoArgs(maker->find_binary);
    if (found != NULL && PyType_Check(found) && maker->binary == NULL) /* else another thread was here meanwhile */
        maker->binary = (PyTypeObject *)Py_NewRef(found);
    Py_XDECREF(found);
    return maker->binary != NULL && !PyErr_Occurred();
}

static PyObject *read_binary(Reader *reader)
{
    Maker *maker = reader->maker;
    if (!pass(reader, '"'))
        return NULL;
    const byte *start = reader->at, *stop = end_of_plain(start, reader->end);
    if (stop == reader->end || *stop != '"' || !found_binary(maker))
        return NULL;
    reader->at = stop + 1;
    PyObject *bytes = from_base64(start, stop - start);
    if (bytes == NULL)
        return NULL;
    /* Without __init__, which looks whether this is bytes. */
    PyObject *binary = maker->binary->tp_new(maker->binary, maker->nothing, NULL);
    if (binary != NULL && PyObject_SetAttr(binary, maker->value, bytes) < 0)
        Py_CLEAR(binary);
    Py_DECREF(bytes);
    return binary;
}

/* ---- Containers ------------------------------------------------------------------------------------------------- */

typedef PyObject *(*Read)(Reader *);
typedef int (*Add)(PyObject *, PyObject *);

/* [one, two]: each is read by `read` and given to `add`. `into` is ours, also when this fails. */
static PyObject *read_sequence(Reader *reader, PyObject *into, Read read, Add add)
{
    if (into == NULL)
        return NULL;
    if (!pass(reader, '['))
        goto failed;
    if (pass(reader, ']'))
        return into;
    do {
        PyObject *one = read(reader);
        if (one == NULL)
            goto failed;
        int added = add(into, one);
        Py_DECREF(one);
        if (added < 0)
            goto failed;
    } while (pass(reader, ','));
    if (pass(reader, ']'))
        return into;
failed:
    Py_DECREF(into);
    return NULL;
}

/* {"name": {"S": "value"}}: an item, or what M holds. */
static PyObject *read_map(Reader *reader)
{
    PyObject *map = PyDict_New();
    if (map == NULL)
        return NULL;
    Py_ssize_t count = 0;
    if (!pass(reader, '{'))
        goto failed;
    if (pass(reader, '}'))
        return map;
    do {
        PyObject *name = read_name(reader);
        if (name == NULL)
            goto failed;
        PyObject *value = pass(reader, ':') ? read_value(reader) : NULL;
        int set = value == NULL ? -1 : PyDict_SetItem(map, name, value);
        Py_DECREF(name);
        Py_XDECREF(value);
        if (set < 0)
            goto failed;
        count++;
    } while (pass(reader, ','));
    if (pass(reader, '}') && PyDict_Size(map) == count) /* else a name came twice */
        return map;
failed:
    Py_DECREF(map);
    return NULL;
}

#define TWO(first, second) ((first) << 8 | (second))
#define FOUR(first) ((first) << 16)

/* The value behind a descriptor of one or two letters, or of four. */
static PyObject *read_described(Reader *reader)
{
    if (!pass(reader, '"') || reader->end - reader->at < 6) /* "S":"" is the shortest that has a value */
        return NULL;
    const byte *at = reader->at;
    int tag;
    if (at[1] == '"') {
        tag = at[0];
        reader->at += 2;
    } else if (at[2] == '"') {
        tag = TWO(at[0], at[1]);
        reader->at += 3;
    } else if (memcmp(at, "BOOL\"", 5) == 0 || memcmp(at, "NULL\"", 5) == 0) {
        tag = FOUR(at[0]);
        reader->at += 5;
    } else {
        return NULL;
    }
    if (!pass(reader, ':'))
        return NULL;
    switch (tag) {
    case 'S':
        return read_text(reader);
    case 'N':
        return read_number(reader);
    case 'B':
        return read_binary(reader);
    case 'M':
        return read_map(reader);
    case 'L':
        return read_sequence(reader, PyList_New(0), read_value, PyList_Append);
    case FOUR('B'):
        if (pass_word(reader, "true", 4))
            return Py_NewRef(Py_True);
        return pass_word(reader, "false", 5) ? Py_NewRef(Py_False) : NULL;
    case FOUR('N'):
        return pass_word(reader, "true", 4) ? Py_NewRef(Py_None) : NULL;
    case TWO('S', 'S'):
        return read_sequence(reader, PySet_New(NULL), read_text, PySet_Add);
    case TWO('N', 'S'):
        return read_sequence(reader, PySet_New(NULL), read_number, PySet_Add);
    case TWO('B', 'S'):
        return read_sequence(reader, PySet_New(NULL), read_binary, PySet_Add);
    default:
        return NULL;
    }
}

/* {"S": "value"} */
static PyObject *read_value(Reader *reader)
{
    if (reader->depth == DEEPEST || !pass(reader, '{'))
        return NULL;
    reader->depth++;
    PyObject *value = read_described(reader);
    reader->depth--;
    if (value != NULL && !pass(reader, '}')) /* a second descriptor, say */
        Py_CLEAR(value);
    return value;
}

/* ---- Module ----------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(item_doc, "item(raw, /)\n--\n\nThe values of an image or key map of JSON bytes; NotImplemented for an odd one.");

static PyObject *Maker_item(PyObject *self, PyObject *raw)
{
    Py_buffer buffer;
    if (PyObject_GetBuffer(raw, &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *values = NULL;
    if (buffer.readonly) { /* others can be changed while they are read */
        Reader reader = {buffer.buf, (const byte *)buffer.buf + buffer.len, (Maker *)self, 0};
        values = read_map(&reader);
        skip_space(&reader);
        if (values != NULL && reader.at != reader.end)
            Py_CLEAR(values);
    }
    PyBuffer_Release(&buffer);
    if (values != NULL)
        return values;
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError))
            return NULL; /* says nothing of the image */
        PyErr_Clear();
    }
    return Py_NewRef(Py_NotImplemented);
}

static int Maker_traverse(PyObject *self, visitproc visit, void *arg)
{
    Maker *maker = (Maker *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(maker->create_decimal);
    Py_VISIT(maker->decode_text);
    Py_VISIT(maker->find_binary);
    Py_VISIT(maker->binary);
    return 0; /* what else it holds refers to nothing */
}

static int Maker_clear(PyObject *self)
{
    Maker *maker = (Maker *)self;
    Py_CLEAR(maker->create_decimal);
    Py_CLEAR(maker->decode_text);
    Py_CLEAR(maker->find_binary);
    Py_CLEAR(maker->binary);
    return 0;
}

static void Maker_dealloc(PyObject *self)
{
    Maker *maker = (Maker *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Maker_clear(self);
    Py_CLEAR(maker->value);
    Py_CLEAR(maker->nothing);
    for (int i = 0; i < REMEMBERED; i++) {
        Py_CLEAR(maker->names[i].value);
        Py_CLEAR(maker->numbers[i].value);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *Maker_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *create_decimal, *decode_text, *find_binary;
    if (!PyArg_ParseTuple(args, "OOO:Maker", &create_decimal, &decode_text, &find_binary))
        return NULL;
    Maker *maker = (Maker *)type->tp_alloc(type, 0); /* all zeros */
    if (maker == NULL)
        return NULL;
    maker->create_decimal = Py_NewRef(create_decimal);
    maker->decode_text = Py_NewRef(decode_text);
    maker->find_binary = Py_NewRef(find_binary);
    maker->value = PyUnicode_InternFromString("value");
    maker->nothing = PyTuple_New(0);
    if (maker->value == NULL || maker->nothing == NULL)
        Py_CLEAR(maker);
    return (PyObject *)maker;
}

PyDoc_STRVAR(Maker_doc, "Maker(create_decimal, decode_text, find_binary)\n--\n\n"
                        "Makes values with what makes a number of its text, a str of JSON's, and what gives Binary.");

static PyMethodDef Maker_methods[] = {{"item", Maker_item, METH_O, item_doc}, {NULL, NULL, 0, NULL}};

static PyType_Slot Maker_slots[] = {
    {Py_tp_doc, (void *)Maker_doc},
    {Py_tp_new, Maker_new},
    {Py_tp_dealloc, Maker_dealloc},
    {Py_tp_traverse, Maker_traverse},
    {Py_tp_clear, Maker_clear},
    {Py_tp_methods, Maker_methods},
    {0, NULL},
};

static PyType_Spec Maker_spec = {
    .name = "stream_consumer_speedups.Maker",
    .basicsize = sizeof(Maker),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Maker_slots,
};

static int fill(PyObject *module)
{
    fill_sextets();
    PyObject *type = PyType_FromModuleAndSpec(module, &Maker_spec, NULL);
    int added = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return added < 0 ? -1 : PyModule_AddIntConstant(module, "FORMAT", FORMAT);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "stream_consumer_speedups",
    .m_doc = "Makes images into Python values for dynamodb-stream-consumer. No interface for anything else.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_stream_consumer_speedups(void)
{
    return PyModuleDef_Init(&definition);
}
