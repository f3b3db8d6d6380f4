/* Compensated sums: a number kept as high + low, so that order does not show. */
#ifndef PK_SUMS_H
#define PK_SUMS_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* high + low += number (Knuth's two-sum, then renormalised) */
static inline void pk_sum_add(double *high, double *low, double number) {
    double sum = *high + number;
    double part = sum - *high;
    double error = (*high - (sum - part)) + (number - part) + *low;
    *high = sum + error;
    *low = error - (*high - sum);
    if (!isfinite(*high)) { /* overflow: the most there is */
        *high = DBL_MAX;
        *low = 0;
    }
}

/* The rounding error of `product`, which is a * b (Dekker, Veltkamp); 0 near overflow. */
static inline double pk_product_error(double a, double b, double product) {
    const double split = 134217729.0; /* 2**27 + 1 */
    if (fabs(a) > 1e290 || fabs(b) > 1e290 || fabs(product) > 1e290) {
        return 0;
    }
    double a_high = a * split, b_high = b * split;
    a_high -= a_high - a;
    b_high -= b_high - b;
    double a_low = a - a_high, b_low = b - b_high;
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
}

/* Of two neighbours the one that ends in a 0 bit. */
static inline double pk_even(double a, double b) {
    uint64_t bits;
    memcpy(&bits, &a, sizeof bits);
    return bits & 1 ? b : a;
}

/* (high + low) / (by + by_low), correctly rounded but for a hair.
 *
 * The last bits of the four numbers depend on the order of the sums. They show where the
 * quotient is a tie, and ties are common: two trades of one size have their mean price
 * between two doubles as often as on one. So what is a tie within that noise (2**-53 of
 * the correction for each number summed) counts as one, and goes to the even neighbour.
 */
static inline double pk_sum_ratio(double high, double low, double by, double by_low) {
    const double noise = 1.0 / (1 << 28);
    double ratio = high / by;
    double product = ratio * by;
    double rest = ((high - product) - pk_product_error(ratio, by, product)) + low - ratio * by_low;
    double correction = rest / by;
    double less = ratio + correction * (1 - noise), more = ratio + correction * (1 + noise);
    return less == more ? less : pk_even(less, more);
}

#endif
