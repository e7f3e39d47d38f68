/* Layers of a small network for a block of B candidates, who go through all of them while they are in the first cache; the weights stream past
 * from the second. A candidate's numbers do not depend on its place: every block is B wide, the last one is filled up, and sums over inputs are
 * taken in their order.
 *
 * Before this come the sizes as macros, B and the two below it (fused.py), and the space's maps. */

typedef float vec __attribute__((vector_size(4 * LANES), may_alias));
typedef int mask __attribute__((vector_size(4 * LANES)));

static float clamped(float x) { return x < -CLIP ? -CLIP : x > CLIP ? CLIP : x; /* NaN stays */ }

/* Numbers in the panels of a layer. */
#define PANELS(ins, outs) (((ins) + 1) * (((outs) + R - 1) / R * R))

/* Weights (ins, outs) and bias (outs) -> panels of R outputs, as `layer` reads them: R biases, then R weights for each input, 0 beyond outs.
 * -> numbers written. */
long pack(const float *w, const float *bias, long ins, long outs, float *panels) {
    float *p = panels;
    for (long o = 0; o < outs; o += R)
        for (long i = -1; i < ins; i++)
            for (long r = o; r < o + R; r++) *p++ = r >= outs ? 0 : i < 0 ? bias[r] : w[i * outs + r];
    return p - panels;
}

/* out = w x + bias, its relu where asked for. -> the panels behind these */
static const float *layer(const float *w, int ins, int outs, float (*x)[B], float (*out)[B], int relu) {
    for (int o = 0; o < outs; o += R) {
        vec sum[R][B / LANES];
#pragma GCC unroll 16
        for (int r = 0; r < R; r++)
#pragma GCC unroll 16
            for (int v = 0; v < B / LANES; v++) sum[r][v] = w[r] - (vec){0};
        w += R;
        for (int i = 0; i < ins; i++, w += R) {
            const vec *row = (const vec *)x[i];
#pragma GCC unroll 16
            for (int r = 0; r < R; r++)
#pragma GCC unroll 16
                for (int v = 0; v < B / LANES; v++) sum[r][v] += w[r] * row[v];
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; r++)
            if (o + r < outs)
#pragma GCC unroll 16
                for (int v = 0; v < B / LANES; v++) {
                    vec y = sum[r][v];
                    if (relu) y = (vec)((mask)y & ~(y < 0)); /* NaN stays */
                    ((vec *)out[o + r])[v] = y;
                }
    }
    return w;
}

/* Candidates at, at + 1, .. of rows (n, columns), filled up with the first of them where there are but `here`. */
static void load(const float *rows, int n, long columns, long at, long here, float (*block)[B]) {
    for (int i = 0; i < n; i++)
        for (int c = 0; c < B; c++) block[i][c] = rows[i * columns + at + (c < here ? c : 0)];
}

static void standardise(float (*x)[B], int n, const float *mean, const float *scale) {
    for (int i = 0; i < n; i++)
        for (int c = 0; c < B; c++) x[i][c] = clamped((x[i][c] - mean[i]) * scale[i]);
}
