#include "tracer/recorder/rate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define UNITS 4294967296.0
#define DIGITS_MAX 10 /* 32 bits need no more */

bool mlz_rate_valid(double rate) { return rate > 0 && rate <= 1 && rate * UNITS >= 0.5; }

bool mlz_rate_parse(const char *text, double *rate) {
  char *end;
  double value = strtod(text, &end);
  if (end == text || *end || !mlz_rate_valid(value)) return false;
  *rate = value;
  return true;
}

uint32_t mlz_rate_word(double rate) {
  double units = round(rate * UNITS);
  return units < 1 ? 0 : (uint32_t)(uint64_t)(units - 1);
}

double mlz_rate_meant(uint32_t word) {
  double exact = ((double)word + 1) / UNITS;
  for (int digits = 1; digits <= DIGITS_MAX; digits++) {
    double part = 1 / round(1 / exact);
    if (digits == 4 && mlz_rate_word(part) == word) return part;
    char text[32];
    snprintf(text, sizeof text, "%.*g", digits, exact);
    double value = strtod(text, NULL);
    if (mlz_rate_valid(value) && mlz_rate_word(value) == word) return value;
  }
  return exact;
}
