/* Compensated sums: a number kept as high + low, so that order does not show. */
#ifndef PK_SUMS_H
#define PK_SUMS_H

#include <math.h>

/* high + low += number (Knuth's two-sum, then renormalised) */
static inline void pk_sum_add(double *high, double *low, double number) {
    double sum = *high + number;
    double part = sum - *high;
    double error = (*high - (sum - part)) + (number - part) + *low;
    *high = sum + error;
    *low = error - (*high - sum);
    if (!isfinite(*high)) { /* overflow: no error term to speak of */
        *high = sum;
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

/* high + low += a * b */
static inline void pk_sum_add_product(double *high, double *low, double a, double b) {
    double product = a * b;
    double error = pk_product_error(a, b, product);
    pk_sum_add(high, low, product);
    pk_sum_add(high, low, error);
}

/* (high + low) / (by + by_low), correctly rounded but for a hair */
static inline double pk_sum_ratio(double high, double low, double by, double by_low) {
    double ratio = high / by;
    double product = ratio * by;
    double rest = ((high - product) - pk_product_error(ratio, by, product)) + low - ratio * by_low;
    double better = ratio + rest / by;
    return isfinite(better) ? better : ratio;
}

#endif
