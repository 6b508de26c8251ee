/* Floats that a vector register of this processor holds. Wider vectors are allowed, but compilers keep them in memory. */

#ifndef DSNN_VECTORS_H
#define DSNN_VECTORS_H

#if defined(__AVX512F__)
#define VECTOR 16
#elif defined(__AVX__)
#define VECTOR 8
#else
#define VECTOR 4
#endif

#endif
