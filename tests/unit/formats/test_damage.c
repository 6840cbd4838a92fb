/* A small trace cut at every byte, and with every bit turned over: it reads as before, or the reader says that it is damaged. */
#include "formats/reader.h"
#include "formats/trace.h"
#include "tests/golden/dump_trace.h"
#include "tests/golden/sample.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static char err[256];

/* The text of what can be read, or NULL with `err`. *sound: the reader claims that all is well. */
static char *text_of(const uint8_t *bytes, size_t n, bool *sound, struct mlz_damage *damage) {
  struct mlz_trace *t;
  uint8_t *exact = malloc(n == 0 ? 1 : n); /* so that a sanitizer sees one byte too many */
  memcpy(exact, bytes, n);
  err[0] = 0;
  int rc = mlz_trace_open_memory(&t, exact, n, err, sizeof err);
  char *text = NULL;
  if (rc == 0) {
    text = dump_trace_text(t);
    cr_assert_not_null(text);
    *sound = mlz_trace_complete(t);
    *damage = *mlz_trace_damage(t);
    mlz_trace_close(t);
  } else {
    cr_assert_neq(err[0], 0);
  }
  free(exact);
  return text;
}

/* The event lines of a text. */
static const char *events(const char *text) {
  const char *p = strstr(text, "\nchunk ");
  return p == NULL ? "" : p;
}

Test(damage, cut_at_every_byte, .timeout = 100) {
  size_t n;
  bool sound;
  struct mlz_damage d;
  for (int finish = 0; finish < 2; finish++) {
    uint8_t *bytes = sample_bytes(finish, &n);
    char *whole = text_of(bytes, n, &sound, &d);
    cr_assert_eq(sound, finish);
    size_t before = 0;
    for (size_t cut = 0; cut < n; cut++) {
      char *text = text_of(bytes, cut, &sound, &d);
      cr_assert(text != NULL || cut < 64);
      if (text == NULL) continue;
      cr_assert(!sound && d.cut && d.chunks_bad == 0, "cut at %zu", cut);
      const char *part = events(text), *end = strstr(part, "\ndamage ");
      size_t length = end == NULL ? 0 : (size_t)(end - part);
      cr_assert_eq(strncmp(part, events(whole), length), 0, "cut at %zu: other events", cut);
      cr_assert_geq(length, before); /* a longer file never tells less */
      before = length;
      free(text);
    }
    cr_assert_gt(before, 1000);
    free(whole);
    free(bytes);
  }
}

Test(damage, every_bit_turned_over, .timeout = 110) {
  size_t n, harmless = 0;
  bool sound;
  struct mlz_damage d;
  uint8_t *bytes = sample_bytes(1, &n);
  char *whole = text_of(bytes, n, &sound, &d);
  for (size_t at = 0; at < n; at++)
    for (unsigned bit = 0; bit<8; bit += n> 4000 ? 3 : 1) {
      bytes[at] ^= (uint8_t)(1u << bit);
      char *text = text_of(bytes, n, &sound, &d);
      bytes[at] ^= (uint8_t)(1u << bit);
      if (text == NULL) continue;
      bool told = !sound && (d.chunks_bad != 0 || d.bytes_bad != 0 || d.cut);
      cr_assert(told, "byte %zu bit %u: not noticed", at, bit);
      harmless += strcmp(text, whole) == 0;
      free(text);
    }
  cr_assert_eq(harmless, 0); /* the last line says what is damaged */
  free(whole);
  free(bytes);
}

Test(damage, a_piece_overwritten_with_zeros, .timeout = 100) {
  size_t n;
  bool sound;
  struct mlz_damage d;
  uint8_t *bytes = sample_bytes(1, &n), *copy = malloc(n);
  for (size_t at = 64; at + 512 < n; at += 61) {
    memcpy(copy, bytes, n);
    memset(copy + at, 0, 512);
    char *text = text_of(copy, n, &sound, &d);
    cr_assert_not_null(text);
    cr_assert(!sound && d.chunks_bad != 0 && d.bytes_bad != 0);
    free(text);
  }
  free(bytes);
  free(copy);
}

Test(damage, lost_events_are_counted) {
  size_t n, at = 64;
  bool sound;
  struct mlz_damage d;
  uint8_t *bytes = sample_bytes(1, &n);
  while (sample_chunk_kind(bytes + at) != 7) at += sample_chunk_size(bytes + at);
  bytes[at + 60] ^= 1;
  size_t size = sample_chunk_size(bytes + at);
  for (int with_index = 1; with_index >= 0; with_index--) {
    char *text = text_of(bytes, with_index ? n : n - 32, &sound, &d);
    cr_assert_eq(d.chunks_bad, 1);
    cr_assert_eq(d.bytes_bad, size);
    cr_assert_eq(d.events_bad, 510);
    cr_assert_eq(d.cut, !with_index);
    free(text);
  }
  free(bytes);
}
