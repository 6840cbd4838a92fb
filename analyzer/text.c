#include "analyzer/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

static void *out_of_memory(void) {
  fputs("memlyze: out of memory\n", stderr);
  exit(2);
}

void *mlz_text_realloc(void *p, size_t n, size_t size) {
  void *out = reallocarray(p, n ? n : 1, size ? size : 1);
  return out ? out : out_of_memory();
}

void *mlz_text_calloc(size_t n, size_t size) {
  void *out = calloc(n ? n : 1, size ? size : 1);
  return out ? out : out_of_memory();
}

char *mlz_text_format(const char *format, ...) {
  va_list args;
  va_start(args, format);
  char *out = NULL;
  int n = vasprintf(&out, format, args);
  va_end(args);
  return n >= 0 ? out : out_of_memory();
}

uint32_t mlz_text_next(const char *text, unsigned *bytes) {
  const unsigned char *p = (const unsigned char *)text;
  *bytes = 1;
  if (p[0] < 0x80) return p[0];
  unsigned n = p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : 0;
  if (!n) return 0xfffd;
  uint32_t c = p[0] & (0x7fu >> n);
  for (unsigned i = 1; i < n; i++) {
    if ((p[i] & 0xc0) != 0x80) return 0xfffd;
    c = c << 6 | (p[i] & 0x3fu);
  }
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0xfffd;
  *bytes = n;
  return c;
}

static bool is_control(uint32_t c) {
  /* C0, DEL, C1, and the marks that reorder or hide what follows them. */
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2066 && c <= 0x2069);
}

/* A growing byte buffer for the functions below. */
struct buffer {
  char *data;
  size_t size, room;
};

static void put(struct buffer *b, const char *data, size_t size) {
  if (b->size + size + 1 > b->room) {
    b->room = (b->size + size + 1) * 2;
    b->data = mlz_text_realloc(b->data, b->room, 1);
  }
  memcpy(b->data + b->size, data, size);
  b->size += size;
  b->data[b->size] = 0;
}

static const char replacement[] = "\xef\xbf\xbd";

char *mlz_text_clean(const char *text, bool plain) {
  struct buffer b = {0};
  put(&b, "", 0);
  unsigned n;
  for (; *text; text += n) {
    uint32_t c = mlz_text_next(text, &n);
    if (c == 0xfffd || (plain && is_control(c)))
      put(&b, replacement, 3);
    else
      put(&b, text, n);
  }
  return b.data;
}

char *mlz_text_xml(const char *text) {
  struct buffer b = {0};
  put(&b, "", 0);
  unsigned n;
  for (; *text; text += n) {
    uint32_t c = mlz_text_next(text, &n);
    const char *entity = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&quot;" : c == '\'' ? "&#39;" : NULL;
    if (entity)
      put(&b, entity, strlen(entity));
    else if (is_control(c) || c == 0xfffd || c == 0xfffe || c == 0xffff)
      put(&b, replacement, 3);
    else
      put(&b, text, n);
  }
  return b.data;
}

static unsigned char_width(uint32_t c) {
  if (c < 0x7f) return 1;
  int w = wcwidth((wchar_t)c);
  return w < 0 ? 1 : (unsigned)w;
}

unsigned mlz_text_width(const char *text) {
  unsigned width = 0, n;
  for (; *text; text += n) width += char_width(mlz_text_next(text, &n));
  return width;
}

/* The first byte from which on `text` takes at most `width` columns. */
static const char *tail_of(const char *text, unsigned width) {
  unsigned left = mlz_text_width(text), n;
  while (*text && left > width) {
    left -= char_width(mlz_text_next(text, &n));
    text += n;
  }
  return text;
}

/* How many bytes of `text` fit into `width` columns. */
static size_t head_of(const char *text, unsigned width) {
  const char *p = text;
  unsigned used = 0, n;
  while (*p) {
    used += char_width(mlz_text_next(p, &n));
    if (used > width) break;
    p += n;
  }
  return (size_t)(p - text);
}

/* Without ".<locals>", which says only that a function was made inside another one, and with "etree..so" for an extension's name like
 * "etree.cpython-311-x86_64-linux-gnu.so"; malloc'd. */
static char *without_noise(const char *name) {
  static const char locals[] = ".<locals>", tag[] = ".cpython-";
  struct buffer b = {0};
  put(&b, "", 0);
  for (const char *next; (next = strstr(name, locals)) != NULL; name = next + sizeof locals - 1) put(&b, name, (size_t)(next - name));
  const char *abi = strstr(name, tag), *end = abi ? strstr(abi, ".so") : NULL;
  if (end && !memchr(abi, '/', (size_t)(end - abi))) {
    put(&b, name, (size_t)(abi + 1 - name));
    name = end;
  }
  put(&b, name, strlen(name));
  return b.data;
}

static bool after_operator(const char *name, const char *p) { return p - name >= 8 && memcmp(p - 8, "operator", 8) == 0; }

static bool is_word(char c) { return c == '_' || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

/* Cuts the parameters of a C++ function, and what follows them: "f(int) const" becomes "f". "(no stack)", "operator()" and "{lambda(int)#1}" stay. */
static void drop_parameters(char *name) {
  char *end = strrchr(name, ')');
  if (!end || (end[1] && end[1] != ' ')) return;
  unsigned depth = 0;
  for (char *p = end; p > name; p--) {
    if (*p == ')') depth++;
    if (*p != '(' || --depth) continue;
    if (!after_operator(name, p)) *p = 0;
    return;
  }
}

/* The end of the template arguments that begin at `p`; NULL: none do ("<lambda>", "operator<", "<T as U>"), or they have no end. */
static const char *arguments_end(const char *name, const char *p) {
  bool turbofish = p >= name + 2 && p[-1] == ':' && p[-2] == ':' && strncmp(p, "<lambda", 7) != 0; /* "f::<T>", of Rust */
  if (*p != '<' || p == name || !(is_word(p[-1]) || turbofish) || after_operator(name, p)) return NULL;
  unsigned depth = 0;
  for (; *p; p++) {
    if (*p == '<') depth++;
    if (*p == '>' && p[-1] != '-' && --depth == 0) return p;
  }
  return NULL;
}

/* Takes away "void " of "void f<int>": what stands before the last blank that is in no brackets and does not belong to an operator's name. */
static void drop_type(char *name) {
  name += strspn(name, " "); /* a caller's indentation */
  const char *from = name;
  int depth = 0;
  for (const char *p = name; *p; p++) {
    if (strchr("(<{[", *p) && !after_operator(name, p)) depth++;
    if (strchr(")>}]", *p) && p > name && p[-1] != '-') depth--;
    if (*p == ' ' && depth == 0 && p[1] != '[') from = p + 1; /* not " [clone .cold]" */
    if (depth == 0 && after_operator(name, p)) break;
  }
  memmove(name, from, strlen(from) + 1);
}

static void drop_arguments(char *name) {
  char *out = name;
  for (const char *p = name, *end; *p; p++) {
    end = arguments_end(name, p);
    *out++ = *p;
    if (end) p = end - 1;
  }
  *out = 0;
}

enum { BRIEF_STEPS = 3 };
/* As little as it takes to make `name` fit into `width`: first its parameters go, then the type, then the arguments of templates. */
static char *brief_name(const char *text, unsigned width) {
  static void (*const steps[BRIEF_STEPS])(char *) = {drop_parameters, drop_type, drop_arguments};
  char *name = without_noise(text);
  bool native = strstr(name, "::") || strchr(name, ')'); /* a Python name has neither */
  for (unsigned i = 0; i < BRIEF_STEPS && native && mlz_text_width(name) > width; i++) steps[i](name);
  return name;
}

unsigned mlz_text_name_width(const char *name) {
  char *brief = brief_name(name, 0);
  unsigned width = mlz_text_width(brief);
  free(brief);
  return width;
}

/* `tail` columns at least are kept of the end. */
static char *shorten_inside(const char *text, unsigned keep, unsigned tail) {
  if (tail < keep - keep / 2) tail = keep - keep / 2;
  return mlz_text_format("%.*s..%s", (int)head_of(text, keep - tail), text, tail_of(text, tail));
}

static char *shorten_name(const char *text, unsigned width) {
  enum { HEAD_MIN = 3 };
  char *brief = brief_name(text, width);
  const char *dot = strrchr(brief, '.'), *colon = strrchr(brief, ':');
  if (colon > dot) dot = colon;
  unsigned last = dot ? mlz_text_width(dot + 1) : 0;
  char *out = mlz_text_width(brief) <= width ? mlz_text_format("%s", brief)
                                             : shorten_inside(brief, width - 2, last + HEAD_MIN + 2 <= width ? last : 0);
  free(brief);
  return out;
}

static char *shorten_path(const char *path, unsigned width) {
  char *text = without_noise(path);
  const char *tail = tail_of(text, width);
  if (tail > text && tail[-1] != '/') {
    const char *slash = strchr(tail, '/');
    tail = slash ? slash + 1 : NULL;
  }
  char *out = tail && *tail ? mlz_text_format("%s", tail) : mlz_text_format("..%s", tail_of(text, width - 2));
  free(text);
  return out;
}

char *mlz_text_shorten(const char *text, unsigned width, enum mlz_shorten how) {
  if (mlz_text_width(text) <= width) return mlz_text_format("%s", text);
  if (width < 4) return mlz_text_format("%.*s", (int)head_of(text, width), text);
  if (how == MLZ_SHORTEN_PATH) return shorten_path(text, width);
  if (how == MLZ_SHORTEN_NAME) return shorten_name(text, width);
  if (how == MLZ_SHORTEN_MIDDLE) return shorten_inside(text, width - 2, 0);
  return mlz_text_format("%.*s..", (int)head_of(text, width - 2), text);
}
