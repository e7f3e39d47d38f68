/* One inner period of every quadrotor in a batch, but for the engine's part: autopilot.py, cable.py and the drag of quadrotor.py, written once more
 * (robots/inner.py). Rows are doubles, in C's order; a row of qpos begins `per_qpos` doubles after the one before, one of qvel `per_qvel`. */

#include <math.h>

struct vehicle { /* inner.py fills it */
    double dt, lag, mass, most;
    double inertia[3], gain[3], integral_gain[3], integral_max[3], drag[3];
    double mix[4][4], allocation[4][4];
};

struct batch {
    long b, per_qpos, per_qvel;
    const double *qpos, *qvel;               /* (b, 14), (b, 12), as robots.bodies says */
    const double *command, *air;             /* (b, 4), (b, 3) */
    const double *works, *strength;          /* (b, 4) 0 where it has crashed; (b, 4) of the rotors */
    const double *length, *reduced;          /* (b,) of the cable; reduced mass, 0 where nothing hangs */
    double *thrust, *model, *integral;       /* (b, 4), (b, 3), (b, 3): autopilot.Memory, which becomes the next */
    double *force, *torque, *pull;           /* (b, 3) each: results */
};

static double least(double a, double b) { return a < b ? a : b; }
static double most(double a, double b) { return a > b ? a : b; }
static double within(double x, double low, double high) { return least(most(x, low), high); }
static double dot(const double *a, const double *b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

static void rotation(const double *q, double r[3][3]) {
    double n = sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    double w = q[0] / n, x = q[1] / n, y = q[2] / n, z = q[3] / n;
    r[0][0] = 1 - 2 * (y * y + z * z), r[0][1] = 2 * (x * y - w * z), r[0][2] = 2 * (x * z + w * y);
    r[1][0] = 2 * (x * y + w * z), r[1][1] = 1 - 2 * (x * x + z * z), r[1][2] = 2 * (y * z - w * x);
    r[2][0] = 2 * (x * z - w * y), r[2][1] = 2 * (y * z + w * x), r[2][2] = 1 - 2 * (x * x + y * y);
}

/* Autopilot.rotors: collective thrust and torque -> thrust of each rotor. */
static void rotors(const struct vehicle *v, double thrust, const double *torque, double *out) {
    double tilt[4], low = INFINITY, high = -INFINITY, share = 1;
    for (int i = 0; i < 4; i++) {
        tilt[i] = torque[0] * v->mix[i][1] + torque[1] * v->mix[i][2];
        low = least(low, tilt[i]), high = most(high, tilt[i]);
    }
    double shrink = least(1, v->most / most(high - low, 1e-12));
    double base = within(thrust / 4, -low * shrink, v->most - high * shrink);
    for (int i = 0; i < 4; i++) {
        double yaw = torque[2] * v->mix[i][3], at = tilt[i] * shrink + base;
        share = least(share, most(yaw > 0 ? v->most - at : at, 0) / most(fabs(yaw), 1e-12));
    }
    for (int i = 0; i < 4; i++)
        out[i] = within(tilt[i] * shrink + base + share * (torque[2] * v->mix[i][3]), 0, v->most);
}

/* Autopilot.step, and motors that are off: as inner.written_out. */
static void step(const struct vehicle *v, const double *command, const double *w, const double *works, double *thrust,
                 double *model, double *integral) {
    double torque[3], target[4], momentum[3];
    for (int i = 0; i < 3; i++) {
        integral[i] += v->dt * v->integral_gain[i] * (model[i] - w[i]);
        integral[i] = within(integral[i], -v->integral_max[i], v->integral_max[i]);
        model[i] += v->dt * v->gain[i] * (command[1 + i] - model[i]);
        momentum[i] = v->inertia[i] * w[i];
    }
    for (int i = 0; i < 3; i++) {
        int j = (i + 1) % 3, k = (i + 2) % 3;
        torque[i] = v->inertia[i] * (v->gain[i] * (command[1 + i] - w[i]) + integral[i]) + (w[j] * momentum[k] - w[k] * momentum[j]);
    }
    rotors(v, command[0], torque, target);
    for (int i = 0; i < 4; i++) thrust[i] = (thrust[i] + v->lag * (target[i] - thrust[i])) * works[i];
}

/* cable.tension: the force on the load. */
static void tension(double dt, const double *apart, const double *end, double length, double reduced, double *pull) {
    double size = most(sqrt(dot(apart, apart)), 1e-9), q[3] = {apart[0] / size, apart[1] / size, apart[2] / size};
    double along = dot(q, end), excess = dot(end, end) - length * length;
    double shift = most(along - sqrt(most(along * along - excess, 0)), 0);
    for (int i = 0; i < 3; i++) pull[i] = -(reduced * shift / (dt * dt)) * q[i];
}

void inner(const struct vehicle *v, const struct batch *of) {
    for (long n = 0; n < of->b; n++) {
        const double *qpos = of->qpos + n * of->per_qpos, *qvel = of->qvel + n * of->per_qvel, *strength = of->strength + 4 * n;
        double *thrust = of->thrust + 4 * n, *force = of->force + 3 * n, *torque = of->torque + 3 * n;
        double r[3][3], wrench[4] = {0}, wind[3], body[3], apart[3], end[3];
        rotation(qpos + 3, r);
        step(v, of->command + 4 * n, qvel + 3, of->works + 4 * n, thrust, of->model + 3 * n, of->integral + 3 * n);
        for (int i = 0; i < 4; i++)
            for (int k = 0; k < 4; k++) wrench[i] += v->allocation[i][k] * (thrust[k] * strength[k]);
        for (int i = 0; i < 3; i++) wind[i] = of->air[3 * n + i] - qvel[i];
        for (int i = 0; i < 3; i++)
            body[i] = v->drag[i] * (r[0][i] * wind[0] + r[1][i] * wind[1] + r[2][i] * wind[2]) + (i == 2 ? wrench[0] : 0);
        for (int i = 0; i < 3; i++) {
            force[i] = dot(r[i], body), torque[i] = dot(r[i], wrench + 1);
            apart[i] = qpos[7 + i] - qpos[i];
            end[i] = apart[i] + v->dt * (qvel[6 + i] - qvel[i] - v->dt / v->mass * force[i]);
        }
        tension(v->dt, apart, end, of->length[n], of->reduced[n], of->pull + 3 * n);
        for (int i = 0; i < 3; i++) force[i] -= of->pull[3 * n + i];
    }
}
