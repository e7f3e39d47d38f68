/* MLP.stepper. */

enum { N_IN = N_FEATURE + N_ACTION + N_BODY };

/* Of `weights` below. */
long numbers(void) {
    return 2 * (N_FEATURE + N_DELTA) + PANELS(N_IN, WIDTH) + (DEPTH - 1) * PANELS(WIDTH, WIDTH) + PANELS(WIDTH + N_IN, N_DELTA);
}

/* Candidates first to last - 1 of s (N_STATE, columns) and a (N_ACTION, columns), n to a robot -> next (N_STATE, columns). Robot r's motors and
 * body act by gain (robots, N_ACTION + N_BODY). weights: mean and 1 / std of features, mean and std of deltas, then every layer's panels. */
void step(const float *weights, const float *gain, const float *s, const float *a, float *next, long columns, long n, long first, long last) {
    _Alignas(64) float psi[WIDTH + N_IN][B], hidden[WIDTH][B], state[N_STATE][B], delta[N_DELTA][B];
    const float *mean = weights, *scale = mean + N_FEATURE, *d_mean = scale + N_FEATURE, *d_std = d_mean + N_DELTA;
    float(*x)[B] = psi + WIDTH;
    for (long at = first; at < last; at += B) {
        long here = last - at < B ? last - at : B;
        load(s, N_STATE, columns, at, here, state);
        features(state, x);
        standardise(x, N_FEATURE, mean, scale);
        load(a, N_ACTION, columns, at, here, x + N_FEATURE);
        for (int c = 0; c < B; c++) {
            const float *g = gain + (at + (c < here ? c : 0)) / n * (N_ACTION + N_BODY);
            for (int i = 0; i < N_ACTION; i++) x[N_FEATURE + i][c] *= g[i];
            for (int i = N_ACTION; i < N_ACTION + N_BODY; i++) x[N_FEATURE + i][c] = g[i];
        }
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
