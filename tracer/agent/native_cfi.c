#include "native_cfi.h"

#include <string.h>

enum { REG_RBP = 6, REG_RSP = 7, REG_RA = 16, REG_CFA = 200 /* ours: the frame address itself */ };

/* ---- reading ---- */

struct cursor {
  const uint8_t *p, *end;
  bool bad; /* the end was met: everything read since is 0 */
};

static uint64_t take(struct cursor *c, unsigned n) {
  uint64_t v = 0;
  if ((size_t)(c->end - c->p) < n) {
    c->bad = true;
    c->p = c->end;
    return 0;
  }
  memcpy(&v, c->p, n);
  c->p += n;
  return v;
}
static int64_t take_signed(struct cursor *c, unsigned n) {
  uint64_t v = take(c, n), sign = UINT64_C(1) << (8 * n - 1);
  return (int64_t)((v ^ sign) - sign);
}
static uint64_t take_uleb(struct cursor *c) {
  uint64_t v = 0;
  for (unsigned shift = 0; shift < 70; shift += 7) {
    uint8_t b = (uint8_t)take(c, 1);
    if (shift < 64) v |= (uint64_t)(b & 0x7f) << shift;
    if (!(b & 0x80)) break;
  }
  return v;
}
static int64_t take_sleb(struct cursor *c) {
  uint64_t v = 0;
  for (unsigned shift = 0; shift < 70;) {
    uint8_t b = (uint8_t)take(c, 1);
    if (shift < 64) v |= (uint64_t)(b & 0x7f) << shift;
    shift += 7;
    if (b & 0x80) continue;
    if (b & 0x40 && shift < 64) v |= ~UINT64_C(0) << shift;
    break;
  }
  return (int64_t)v;
}
static const uint8_t *take_block(struct cursor *c, uint64_t n) {
  const uint8_t *at = c->p;
  if ((uint64_t)(c->end - c->p) < n) {
    c->bad = true;
    n = 0;
  }
  c->p += n;
  return at;
}

/* A pointer as `encoding` (DW_EH_PE_*) says; `data`: what data-relative ones are relative to. */
static uintptr_t take_pointer(struct cursor *c, uint8_t encoding, uintptr_t data) {
  uintptr_t at = (uintptr_t)c->p, v;
  if (encoding == 0xff) return 0;
  switch (encoding & 0x0f) {
  case 0x00:
  case 0x04:
  case 0x0c:
    v = take(c, 8);
    break;
  case 0x01:
    v = take_uleb(c);
    break;
  case 0x02:
    v = take(c, 2);
    break;
  case 0x03:
    v = take(c, 4);
    break;
  case 0x09:
    v = (uintptr_t)take_sleb(c);
    break;
  case 0x0a:
    v = (uintptr_t)take_signed(c, 2);
    break;
  case 0x0b:
    v = (uintptr_t)take_signed(c, 4);
    break;
  default:
    c->bad = true;
    return 0;
  }
  switch (encoding & 0x70) {
  case 0x00:
    return v;
  case 0x10:
    return v + at;
  case 0x30:
    return v + data;
  default:
    c->bad = true;
    return 0;
  }
}

/* ---- finding the entry ---- */

struct cie {
  uint64_t code_align;
  int64_t data_align;
  uint64_t ra; /* column of the return address */
  uint8_t encoding;
  bool augmented; /* entries have a length of augmentation data */
  bool signal;
  struct cursor program;
};
struct fde {
  struct cie cie;
  uintptr_t low, high;
  struct cursor program;
};

/* A record's contents behind its length; false: the end of the table, or none of ours. */
static bool open_record(const uint8_t *at, struct cursor *c) {
  uint32_t length;
  memcpy(&length, at, sizeof(length));
  if (length == 0) return false;
  if (length == 0xffffffffu) { /* the form with 64 bits */
    uint64_t longer;
    memcpy(&longer, at + 4, sizeof(longer));
    if (longer >> 40) return false;
    *c = (struct cursor){at + 12, at + 12 + longer, false};
    return true;
  }
  *c = (struct cursor){at + 4, at + 4 + length, false};
  return true;
}

static bool read_cie(const uint8_t *at, struct cie *e) {
  struct cursor c;
  *e = (struct cie){.encoding = 0};
  if (!open_record(at, &c) || take(&c, 4) != 0) return false;
  uint8_t version = (uint8_t)take(&c, 1);
  if (version != 1 && version != 3) return false;
  const char *augmentation = (const char *)c.p;
  while (take(&c, 1) != 0 && !c.bad) {}
  e->code_align = take_uleb(&c);
  e->data_align = take_sleb(&c);
  e->ra = version == 1 ? take(&c, 1) : take_uleb(&c);
  if (*augmentation == 'z') {
    e->augmented = true;
    uint64_t length = take_uleb(&c);
    struct cursor data = {c.p, NULL, false};
    take_block(&c, length);
    data.end = c.p;
    for (const char *a = augmentation + 1; *a; a++) {
      if (*a == 'R')
        e->encoding = (uint8_t)take(&data, 1);
      else if (*a == 'L')
        take(&data, 1);
      else if (*a == 'P') {
        uint8_t encoding = (uint8_t)take(&data, 1);
        take_pointer(&data, encoding & 0x0f, 0);
      } else if (*a == 'S')
        e->signal = true;
      else if (*a != 'B')
        return false;
    }
    if (data.bad) return false;
  } else if (*augmentation) {
    return false;
  }
  e->program = c;
  return !c.bad && e->ra == REG_RA;
}

static bool read_fde(const uint8_t *at, uintptr_t pc, struct fde *f) {
  struct cursor c;
  if (!open_record(at, &c)) return false;
  const uint8_t *place = c.p;
  uint32_t back = (uint32_t)take(&c, 4);
  if (back == 0 || !read_cie(place - back, &f->cie)) return false;
  f->low = take_pointer(&c, f->cie.encoding, 0);
  f->high = f->low + take_pointer(&c, f->cie.encoding & 0x0f, 0);
  if (f->cie.augmented) take_block(&c, take_uleb(&c));
  f->program = c;
  return !c.bad && pc >= f->low && pc < f->high;
}

/* Without a table to search in: record after record. */
static bool scan_fde(const uint8_t *at, uintptr_t pc, struct fde *f) {
  struct cursor c;
  for (; open_record(at, &c); at = c.end) {
    uint32_t back = (uint32_t)take(&c, 4);
    if (back != 0 && read_fde(at, pc, f)) return true;
  }
  return false;
}

static bool find_fde(const uint8_t *hdr, uintptr_t pc, struct fde *f) {
  if (hdr[0] != 1) return false;
  struct cursor c = {hdr + 4, hdr + 64, false};
  uintptr_t frames = take_pointer(&c, hdr[1], (uintptr_t)hdr);
  bool table = hdr[2] != 0xff && hdr[3] == 0x3b; /* data-relative, signed, 4 bytes: what every linker writes */
  if (!table) return !c.bad && frames && scan_fde((const uint8_t *)frames, pc, f);
  size_t n = take_pointer(&c, hdr[2], (uintptr_t)hdr), low = 0;
  if (c.bad || n == 0) return false;
  const uint8_t *rows = c.p;
  for (size_t high = n; high - low > 1;) {
    size_t middle = low + (high - low) / 2;
    int32_t start;
    memcpy(&start, rows + 8 * middle, sizeof(start));
    if ((uintptr_t)hdr + (uintptr_t)(intptr_t)start <= pc)
      low = middle;
    else
      high = middle;
  }
  int32_t place;
  memcpy(&place, rows + 8 * low + 4, sizeof(place));
  return read_fde(hdr + place, pc, f);
}

/* ---- expressions ---- */

/* A value as far as it is known beforehand. */
struct value {
  enum { CONSTANT, REGISTER, LOADED } kind; /* a; reg + a; *(reg + a) + b */
  unsigned reg;
  int64_t a, b;
};

static bool add_values(struct value x, struct value y, struct value *out) {
  if (x.kind == CONSTANT) {
    struct value swap = x;
    x = y;
    y = swap;
  }
  if (y.kind != CONSTANT) return false;
  *out = x;
  if (x.kind == LOADED)
    out->b += y.a;
  else
    out->a += y.a;
  return true;
}

static bool binary(uint8_t op, struct value x, struct value y, struct value *out) {
  if (op == 0x22) return add_values(x, y, out);
  if (op == 0x1c && y.kind == CONSTANT) {
    y.a = -y.a;
    return add_values(x, y, out);
  }
  if (x.kind != CONSTANT || y.kind != CONSTANT) return false;
  uint64_t a = (uint64_t)x.a, b = (uint64_t)y.a, r;
  switch (op) {
  case 0x1a:
    r = a & b;
    break;
  case 0x21:
    r = a | b;
    break;
  case 0x27:
    r = a ^ b;
    break;
  case 0x1e:
    r = a * b;
    break;
  case 0x24:
    r = b < 64 ? a << b : 0;
    break;
  case 0x25:
    r = b < 64 ? a >> b : 0;
    break;
  case 0x29:
    r = x.a == y.a;
    break;
  case 0x2a:
    r = x.a >= y.a;
    break;
  case 0x2b:
    r = x.a > y.a;
    break;
  case 0x2c:
    r = x.a <= y.a;
    break;
  case 0x2d:
    r = x.a < y.a;
    break;
  case 0x2e:
    r = x.a != y.a;
    break;
  default:
    return false;
  }
  *out = (struct value){CONSTANT, 0, (int64_t)r, 0};
  return true;
}

struct expression {
  const uint8_t *p;
  uint64_t bytes;
};

/* False: its value needs more than one load from one register. `first`: what lies on the stack at the beginning; NULL: nothing. */
static bool evaluate(struct expression e, uintptr_t pc, const struct value *first, struct value *out) {
  enum { DEEPEST = 16 };
  struct value stack[DEEPEST];
  unsigned n = 0;
  struct cursor c = {e.p, e.p + e.bytes, false};
  if (first) stack[n++] = *first;
  while (c.p < c.end && !c.bad) {
    uint8_t op = (uint8_t)take(&c, 1);
    struct value v = {CONSTANT, 0, 0, 0};
    bool pushes = true;
    if (op >= 0x30 && op <= 0x4f) {
      v.a = op - 0x30;
    } else if ((op >= 0x70 && op <= 0x8f) || op == 0x92) {
      v.kind = REGISTER;
      v.reg = op == 0x92 ? (unsigned)take_uleb(&c) : op - 0x70u;
      v.a = take_sleb(&c);
      if (v.reg == REG_RA) v = (struct value){CONSTANT, 0, v.a + (int64_t)pc, 0};
    } else {
      pushes = false;
      switch (op) {
      case 0x08:
        v.a = (int64_t)take(&c, 1);
        pushes = true;
        break;
      case 0x09:
        v.a = take_signed(&c, 1);
        pushes = true;
        break;
      case 0x0a:
        v.a = (int64_t)take(&c, 2);
        pushes = true;
        break;
      case 0x0b:
        v.a = take_signed(&c, 2);
        pushes = true;
        break;
      case 0x0c:
        v.a = (int64_t)take(&c, 4);
        pushes = true;
        break;
      case 0x0d:
        v.a = take_signed(&c, 4);
        pushes = true;
        break;
      case 0x0e:
      case 0x0f:
        v.a = (int64_t)take(&c, 8);
        pushes = true;
        break;
      case 0x10:
        v.a = (int64_t)take_uleb(&c);
        pushes = true;
        break;
      case 0x11:
        v.a = take_sleb(&c);
        pushes = true;
        break;
      case 0x96:
        break;
      case 0x12:
        if (n == 0) return false;
        v = stack[n - 1];
        pushes = true;
        break;
      case 0x13:
        if (n == 0) return false;
        n--;
        break;
      case 0x16: {
        if (n < 2) return false;
        v = stack[n - 1];
        stack[n - 1] = stack[n - 2];
        stack[n - 2] = v;
        break;
      }
      case 0x06:
        if (n == 0 || stack[n - 1].kind != REGISTER) return false;
        stack[n - 1].kind = LOADED;
        stack[n - 1].b = 0;
        break;
      case 0x23:
        v.a = (int64_t)take_uleb(&c);
        if (n == 0 || !add_values(stack[n - 1], v, &stack[n - 1])) return false;
        break;
      default:
        if (n < 2 || !binary(op, stack[n - 2], stack[n - 1], &v)) return false;
        n -= 2;
        pushes = true;
        break;
      }
    }
    if (!pushes) continue;
    if (n == DEEPEST) return false;
    stack[n++] = v;
  }
  if (n == 0 || c.bad) return false;
  *out = stack[n - 1];
  return true;
}

/* ---- the row of an address ---- */

struct saved {
  enum { SAME, UNDEFINED, OFFSET, EXPRESSION, OTHER } kind;
  int64_t offset;
  struct expression e;
};
struct row {
  bool cfa_expression;
  uint64_t cfa_reg;
  int64_t cfa_offset;
  struct expression cfa;
  struct saved rbp, ra;
};

static struct saved *saved_of(struct row *r, uint64_t reg) { return reg == REG_RBP ? &r->rbp : reg == REG_RA ? &r->ra : NULL; }

static void keep(struct row *r, uint64_t reg, struct saved s) {
  struct saved *to = saved_of(r, reg);
  if (to) *to = s;
}

static struct expression take_expression(struct cursor *c) {
  uint64_t n = take_uleb(c);
  return (struct expression){take_block(c, n), n};
}

/* Runs a program up to `pc`. False: something in it is not known. */
static bool run(const struct fde *f, struct cursor c, uintptr_t pc, const struct row *initial, struct row *r) {
  enum { DEEPEST = 8 }; /* the hook may run on a small signal stack */
  struct row stack[DEEPEST];
  unsigned n = 0;
  uintptr_t at = f->low;
  const struct cie *e = &f->cie;
  while (c.p < c.end && !c.bad) {
    uint8_t op = (uint8_t)take(&c, 1), low = op & 0x3f;
    uint64_t advance = 0, reg;
    switch (op >> 6) {
    case 1:
      advance = low;
      break;
    case 2:
      keep(r, low, (struct saved){OFFSET, (int64_t)take_uleb(&c) * e->data_align, {0}});
      continue;
    case 3:
      if (initial && saved_of(r, low)) *saved_of(r, low) = *saved_of((struct row *)(uintptr_t)initial, low);
      continue;
    default:
      switch (op) {
      case 0x00:
        continue;
      case 0x01:
        at = take_pointer(&c, e->encoding, 0);
        if (at > pc) return true;
        continue;
      case 0x02:
        advance = take(&c, 1);
        break;
      case 0x03:
        advance = take(&c, 2);
        break;
      case 0x04:
        advance = take(&c, 4);
        break;
      case 0x05:
        reg = take_uleb(&c);
        keep(r, reg, (struct saved){OFFSET, (int64_t)take_uleb(&c) * e->data_align, {0}});
        continue;
      case 0x06:
        reg = take_uleb(&c);
        if (initial && saved_of(r, reg)) *saved_of(r, reg) = *saved_of((struct row *)(uintptr_t)initial, reg);
        continue;
      case 0x07:
        keep(r, take_uleb(&c), (struct saved){UNDEFINED, 0, {0}});
        continue;
      case 0x08:
        keep(r, take_uleb(&c), (struct saved){SAME, 0, {0}});
        continue;
      case 0x09:
        reg = take_uleb(&c);
        take_uleb(&c);
        keep(r, reg, (struct saved){OTHER, 0, {0}});
        continue;
      case 0x0a:
        if (n == DEEPEST) return false;
        stack[n++] = *r;
        continue;
      case 0x0b:
        if (n == 0) return false;
        *r = stack[--n];
        continue;
      case 0x0c:
        r->cfa_reg = take_uleb(&c);
        r->cfa_offset = (int64_t)take_uleb(&c);
        r->cfa_expression = false;
        continue;
      case 0x0d:
        r->cfa_reg = take_uleb(&c);
        r->cfa_expression = false;
        continue;
      case 0x0e:
        r->cfa_offset = (int64_t)take_uleb(&c);
        continue;
      case 0x0f:
        r->cfa = take_expression(&c);
        r->cfa_expression = true;
        continue;
      case 0x10:
        reg = take_uleb(&c);
        keep(r, reg, (struct saved){EXPRESSION, 0, take_expression(&c)});
        continue;
      case 0x11:
        reg = take_uleb(&c);
        keep(r, reg, (struct saved){OFFSET, take_sleb(&c) * e->data_align, {0}});
        continue;
      case 0x12:
        r->cfa_reg = take_uleb(&c);
        r->cfa_offset = take_sleb(&c) * e->data_align;
        r->cfa_expression = false;
        continue;
      case 0x13:
        r->cfa_offset = take_sleb(&c) * e->data_align;
        continue;
      case 0x14:
        reg = take_uleb(&c);
        take_uleb(&c);
        keep(r, reg, (struct saved){OTHER, 0, {0}});
        continue;
      case 0x15:
        reg = take_uleb(&c);
        take_sleb(&c);
        keep(r, reg, (struct saved){OTHER, 0, {0}});
        continue;
      case 0x16:
        reg = take_uleb(&c);
        take_expression(&c);
        keep(r, reg, (struct saved){OTHER, 0, {0}});
        continue;
      case 0x2e: /* GNU_args_size */
        take_uleb(&c);
        continue;
      case 0x2f: /* GNU_negative_offset_extended */
        reg = take_uleb(&c);
        keep(r, reg, (struct saved){OFFSET, -(int64_t)take_uleb(&c) * e->data_align, {0}});
        continue;
      default:
        return false;
      }
    }
    at += advance * e->code_align;
    if (at > pc) return true;
  }
  return !c.bad;
}

/* ---- from the row to the rule ---- */

static bool fits(int64_t v) { return v >= INT32_MIN && v <= INT32_MAX; }

static bool rule_cfa(const struct row *r, uintptr_t pc, struct mlz_rule *out) {
  struct value v = {REGISTER, (unsigned)r->cfa_reg, r->cfa_offset, 0};
  if (r->cfa_expression && !evaluate(r->cfa, pc, NULL, &v)) return false;
  if (v.kind == CONSTANT || (v.reg != REG_RBP && v.reg != REG_RSP) || !fits(v.a) || !fits(v.b)) return false;
  if (v.reg == REG_RBP) out->flags |= MLZ_RULE_RBP;
  if (v.kind == LOADED) out->flags |= MLZ_RULE_LOAD;
  out->cfa = (int32_t)v.a;
  out->add = v.kind == LOADED ? (int32_t)v.b : 0;
  return true;
}

/* Where a register lies; false: it cannot be said. */
static bool place_of(const struct saved *s, uintptr_t pc, struct value *out) {
  const struct value cfa = {REGISTER, REG_CFA, 0, 0};
  if (s->kind == OFFSET) {
    *out = (struct value){REGISTER, REG_CFA, s->offset, 0};
    return true;
  }
  return s->kind == EXPRESSION && evaluate(s->e, pc, &cfa, out) && out->kind == REGISTER;
}

static bool rule_ra(const struct row *r, uintptr_t pc, struct mlz_rule *out) {
  struct value v;
  if (!place_of(&r->ra, pc, &v) || !fits(v.a)) return false;
  if (v.reg == REG_CFA && v.a == -8) return true;
  if (v.reg != REG_RSP || out->add != 0) return false;
  out->flags |= MLZ_RULE_RA_RSP;
  out->add = (int32_t)v.a;
  return true;
}

static void rule_rbp(const struct row *r, uintptr_t pc, struct mlz_rule *out) {
  struct value v;
  out->rbp_kind = MLZ_RBP_LOST;
  if (r->rbp.kind == SAME) out->rbp_kind = MLZ_RBP_SAME;
  if (!place_of(&r->rbp, pc, &v) || !fits(v.a)) return;
  out->rbp = (int32_t)v.a;
  if (v.reg == REG_CFA) out->rbp_kind = MLZ_RBP_CFA;
  if (v.reg == REG_RBP) out->rbp_kind = MLZ_RBP_RBP;
  if (v.reg == REG_RSP) out->rbp_kind = MLZ_RBP_RSP;
}

void mlz_cfi_rule(const uint8_t *hdr, uintptr_t pc, struct mlz_rule *out) {
  struct fde f;
  struct row initial = {.cfa_reg = REG_RSP}, r;
  uint64_t word = out->word;
  *out = (struct mlz_rule){.word = word, .flags = MLZ_RULE_NONE};
  if (!hdr || !find_fde(hdr, pc, &f) || !run(&f, f.cie.program, UINTPTR_MAX, NULL, &initial)) return;
  r = initial;
  if (!run(&f, f.program, pc, &initial, &r)) return;
  struct mlz_rule rule = {.word = word, .flags = f.cie.signal ? MLZ_RULE_SIGNAL : 0};
  if (r.ra.kind == UNDEFINED)
    rule.flags = MLZ_RULE_END;
  else if (!rule_cfa(&r, pc, &rule) || !rule_ra(&r, pc, &rule))
    return;
  else
    rule_rbp(&r, pc, &rule);
  *out = rule;
}

bool mlz_cfi_range(const uint8_t *hdr, uintptr_t pc, uintptr_t *low, uintptr_t *high) {
  struct fde f;
  if (!hdr || !find_fde(hdr, pc, &f)) return false;
  *low = f.low;
  *high = f.high;
  return true;
}
