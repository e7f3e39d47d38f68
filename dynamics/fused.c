/* MLP.stepper in one pass: a block of B candidates goes through all layers while it is in the first cache, and the weights stream past it from
 * the second. A candidate's numbers do not depend on its place: every block is B wide, what lacks in the last one is filled up, and sums over
 * inputs are taken in their order.
 *
 * Before this come macros for the sizes (N_STATE, N_FEATURE, N_ACTION, N_BODY, N_DELTA, WIDTH, DEPTH, CLIP) and B; behind them the space's
 * features and retract. */

enum { N_IN = N_FEATURE + N_ACTION + N_BODY };

typedef float vec __attribute__((vector_size(4 * LANES), may_alias));
typedef int mask __attribute__((vector_size(4 * LANES)));

static float clamped(float x) { return x < -CLIP ? -CLIP : x > CLIP ? CLIP : x; /* NaN stays */ }

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

/* Candidates first to last - 1 of s (N_STATE, columns) and a (N_ACTION, columns), n to a robot -> next (N_STATE, columns). Robot r's motors and
 * body act by gain (robots, N_ACTION + N_BODY). weights: mean and 1 / std of features, mean and std of deltas, then every layer's panels. */
void step(const float *weights, const float *gain, const float *s, const float *a, float *next, long columns, long n, long first, long last) {
    _Alignas(64) float psi[WIDTH + N_IN][B], hidden[WIDTH][B], state[N_STATE][B], delta[N_DELTA][B];
    const float *mean = weights, *scale = mean + N_FEATURE, *d_mean = scale + N_FEATURE, *d_std = d_mean + N_DELTA;
    float(*x)[B] = psi + WIDTH;
    for (long at = first; at < last; at += B) {
        long here = last - at < B ? last - at : B;
        for (int c = 0; c < B; c++) {
            long from = at + (c < here ? c : 0);
            const float *g = gain + from / n * (N_ACTION + N_BODY);
            for (int i = 0; i < N_STATE; i++) state[i][c] = s[i * columns + from];
            for (int i = 0; i < N_ACTION; i++) x[N_FEATURE + i][c] = a[i * columns + from] * g[i];
            for (int i = 0; i < N_BODY; i++) x[N_FEATURE + N_ACTION + i][c] = g[N_ACTION + i];
        }
        features(state, x);
        for (int i = 0; i < N_FEATURE; i++)
            for (int c = 0; c < B; c++) x[i][c] = clamped((x[i][c] - mean[i]) * scale[i]);
        const float *w = d_std + N_DELTA;
        float(*in)[B] = x;
        for (int i = 0; i < DEPTH; i++) { /* in turn, so that the last layer writes into psi */
            float(*out)[B] = (DEPTH - i) % 2 ? psi : hidden;
            w = layer(w, i ? WIDTH : N_IN, WIDTH, in, out, 1);
            in = out;
        }
        layer(w, WIDTH + N_IN, N_DELTA, psi, delta, 0);
        for (int i = 0; i < N_DELTA; i++)
            for (int c = 0; c < B; c++) delta[i][c] = d_mean[i] + d_std[i] * clamped(delta[i][c]);
        retract(state, delta);
        for (int i = 0; i < N_STATE; i++)
            for (int c = 0; c < here; c++) next[i * columns + at + c] = state[i][c];
    }
}
