/* Sample rates: the number that a person types, and the 32 bits of the settings word that stand for it (shm/control.h). Pure functions. */
#ifndef MLZ_RECORDER_RATE_H
#define MLZ_RECORDER_RATE_H

#include <stdbool.h>
#include <stdint.h>

/* 0 < rate <= 1, and not below half of 2^-32. false: `text` is no such number. */
bool mlz_rate_parse(const char *text, double *rate);
bool mlz_rate_valid(double rate);
uint32_t mlz_rate_word(double rate);
/* The number that was meant by it: the one with the fewest digits that the word stands for, or a part of a whole number where that needs more
 * than three. So weights are 10 and 3, not 9.999999991 and 3.0000000002. */
double mlz_rate_meant(uint32_t word);

#endif
