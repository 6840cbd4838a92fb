#include "analyzer/units.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct mlz_unit {
  const char *name;
  double factor;
};

/* Reads "NUMBER [space] unit"; *rest is the unit's first letter. Hexadecimal, inf and nan are refused: only digits may start it. */
static bool parse_number(const char *text, double *value, const char **rest) {
  while (isspace((unsigned char)*text)) text++;
  const char *p = text;
  while (isdigit((unsigned char)*p)) p++;
  size_t digits = (size_t)(p - text);
  if (*p == '.') {
    p++;
    while (isdigit((unsigned char)*p)) p++, digits++;
  }
  if (!digits || p - text > 40) return false;
  char number[48];
  memcpy(number, text, (size_t)(p - text));
  number[p - text] = 0;
  *value = strtod(number, NULL);
  while (isspace((unsigned char)*p)) p++;
  *rest = p;
  return true;
}

static bool find_unit(const char *text, const struct mlz_unit *units, double *factor) {
  size_t length = strlen(text);
  while (length && isspace((unsigned char)text[length - 1])) length--;
  for (; units->name; units++)
    if (strlen(units->name) == length && !strncasecmp(units->name, text, length)) {
      *factor = units->factor;
      return true;
    }
  return false;
}

static bool parse_scaled(const char *text, const struct mlz_unit *units, uint64_t *out) {
  double value, factor;
  const char *rest;
  if (!parse_number(text, &value, &rest) || !find_unit(rest, units, &factor)) return false;
  value = value * factor + 0.5;
  if (!(value < 18446744073709549568.0)) return false;
  *out = (uint64_t)value;
  return true;
}

bool mlz_units_parse_size(const char *text, uint64_t *bytes) {
  static const struct mlz_unit units[] = {
      {"", 1},
      {"b", 1},
      {"k", 1e3},
      {"kb", 1e3},
      {"m", 1e6},
      {"mb", 1e6},
      {"g", 1e9},
      {"gb", 1e9},
      {"t", 1e12},
      {"tb", 1e12},
      {"ki", 1024},
      {"kib", 1024},
      {"mi", 1048576},
      {"mib", 1048576},
      {"gi", 1073741824.0},
      {"gib", 1073741824.0},
      {"ti", 1099511627776.0},
      {"tib", 1099511627776.0},
      {NULL, 0},
  };
  return parse_scaled(text, units, bytes);
}

bool mlz_units_parse_duration(const char *text, uint64_t *ns) {
  static const struct mlz_unit units[] = {
      {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"min", 60e9}, {"h", 3600e9}, {NULL, 0},
  };
  return parse_scaled(text, units, ns);
}

bool mlz_units_parse_percent(const char *text, double *percent) {
  static const struct mlz_unit units[] = {{"%", 1}, {NULL, 0}};
  double value, factor;
  const char *rest;
  if (!parse_number(text, &value, &rest) || !find_unit(rest, units, &factor) || value > 100) return false;
  *percent = value;
  return true;
}

/* Three significant digits: 9.87, 98.7, 987. */
static int decimals(double value) {
  value = fabs(value);
  return value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
}

const char *mlz_units_size(char *out, double bytes) {
  static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  while (fabs(bytes) >= 999.5 && unit + 1 < sizeof names / sizeof *names) bytes /= 1024, unit++;
  snprintf(out, MLZ_UNITS_MAX, "%.*f %s", unit ? decimals(bytes) : 0, bytes, names[unit]);
  return out;
}

const char *mlz_units_count(char *out, double count) {
  char digits[MLZ_UNITS_MAX];
  int n = snprintf(digits, 20, "%.0f", fabs(count));
  if (n > 18) {
    snprintf(out, MLZ_UNITS_MAX, "%.3g", count);
    return out;
  }
  char *p = out;
  if (count <= -0.5) *p++ = '-';
  for (int i = 0; i < n; i++) {
    if (i && (n - i) % 3 == 0) *p++ = ',';
    *p++ = digits[i];
  }
  *p = 0;
  return out;
}

const char *mlz_units_time(char *out, double ns) {
  if (ns >= 120e9) {
    uint64_t seconds = (uint64_t)(ns / 1e9 + 0.5);
    if (seconds >= 7200)
      snprintf(out, MLZ_UNITS_MAX, "%u h %u min", (unsigned)(seconds / 3600), (unsigned)(seconds / 60 % 60));
    else
      snprintf(out, MLZ_UNITS_MAX, "%u min %u s", (unsigned)(seconds / 60), (unsigned)(seconds % 60));
    return out;
  }
  static const struct mlz_unit units[] = {{"s", 1e9}, {"ms", 1e6}, {"us", 1e3}};
  for (size_t i = 0; i < 3; i++)
    if (ns >= units[i].factor * 0.9995) {
      double value = ns / units[i].factor;
      snprintf(out, MLZ_UNITS_MAX, "%.*f %s", decimals(value), value, units[i].name);
      return out;
    }
  if (ns < 0.5)
    snprintf(out, MLZ_UNITS_MAX, "0");
  else
    snprintf(out, MLZ_UNITS_MAX, "%.0f ns", ns);
  return out;
}

const char *mlz_units_percent(char *out, double part, double whole) {
  if (!(whole > 0))
    out[0] = 0;
  else
    snprintf(out, MLZ_UNITS_MAX, "%.1f%%", 100 * part / whole);
  return out;
}

char *mlz_units_round(char *text) {
  char *point = strchr(text, '.');
  if (!point) return text;
  char *end = point + 1;
  while (*end == '0') end++;
  if (!isdigit((unsigned char)*end)) memmove(point, end, strlen(end) + 1);
  return text;
}
