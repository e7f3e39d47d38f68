/* scalar.of. */

/* Of `weights` below. */
long numbers(void) { return 2 * N_SEEN + PANELS(N_SEEN, WIDTH) + PANELS(WIDTH, WIDTH) + PANELS(WIDTH, 1); }

/* Of states s (N_STATE, columns) -> out (columns). weights: mean and 1 / std of what is seen, then the panels of three layers. */
void scalar(const float *weights, const float *s, float *out, long columns) {
    _Alignas(64) float state[N_STATE][B], x[N_SEEN][B], first[WIDTH][B], second[WIDTH][B], y[1][B];
    for (long at = 0; at < columns; at += B) {
        long here = columns - at < B ? columns - at : B;
        load(s, N_STATE, columns, at, here, state);
        directed(state, x);
        standardise(x, N_SEEN, weights, weights + N_SEEN);
        const float *w = weights + 2 * N_SEEN;
        w = layer(w, N_SEEN, WIDTH, x, first, 1);
        w = layer(w, WIDTH, WIDTH, first, second, 1);
        layer(w, WIDTH, 1, second, y, 0);
        for (int c = 0; c < here; c++) out[at + c] = y[0][c];
    }
}
