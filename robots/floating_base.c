/* FloatingBase's maps (space.py) for a block of B states, a row for each component: s (N_STATE, B), x (N_FEATURE, B; directed: 3 more),
 * delta (N_DELTA, B). */

static void features(float (*s)[B], float (*x)[B]) {
    for (int c = 0; c < B; c++) x[0][c] = s[2][c];
    for (int i = 1; i < N_FEATURE; i++)
        for (int c = 0; c < B; c++) x[i][c] = s[i + 5][c];
}

static void directed(float (*s)[B], float (*x)[B]) {
    features(s, x);
    for (int i = 0; i < 3; i++)
        for (int c = 0; c < B; c++) x[N_FEATURE + i][c] = s[3 + i][c];
}

/* s becomes the next state. */
static void retract(float (*s)[B], float (*delta)[B]) {
    float angle[B], sine[B], cosine[B];
    for (int c = 0; c < B; c++) {
        float x = delta[3][c], y = delta[4][c], z = delta[5][c];
        angle[c] = sqrtf(x * x + y * y + z * z + 1e-24f);
    }
    for (int c = 0; c < B; c++) {
        sine[c] = sinf(angle[c]);
        cosine[c] = cosf(angle[c]);
    }
    for (int c = 0; c < B; c++) {
        float f[3], u[3], moved[3], axis[3];
        for (int i = 0; i < 3; i++) {
            f[i] = s[3 + i][c];
            u[i] = s[6 + i][c];
            moved[i] = delta[i][c];
            axis[i] = delta[3 + i][c] / angle[c];
        }
        float along_f = 0, along_u = 0, forward = 0, left = 0, up = 0;
        for (int i = 0; i < 3; i++) {
            int j = (i + 1) % 3, k = (i + 2) % 3;
            forward += f[i] * moved[i];
            left += (u[j] * f[k] - u[k] * f[j]) * moved[i];
            up += u[i] * moved[i];
            along_f += axis[i] * f[i];
            along_u += axis[i] * u[i];
        }
        s[0][c] += forward;
        s[1][c] += left;
        s[2][c] += up;
        for (int i = 0; i < 3; i++) { /* a row r becomes exp(-w^) r, by Rodrigues' formula */
            int j = (i + 1) % 3, k = (i + 2) % 3;
            float versine = (1 - cosine[c]) * axis[i];
            s[3 + i][c] = cosine[c] * f[i] - sine[c] * (axis[j] * f[k] - axis[k] * f[j]) + along_f * versine;
            s[6 + i][c] = cosine[c] * u[i] - sine[c] * (axis[j] * u[k] - axis[k] * u[j]) + along_u * versine;
        }
    }
    for (int i = 9; i < N_STATE; i++)
        for (int c = 0; c < B; c++) s[i][c] += delta[i - 3][c];
}
