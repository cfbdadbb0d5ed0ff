"""kernel.py: one model's epochs, and one model's scores, as compiled functions over flat float32 arrays.

H hidden units, B rows a batch, K input columns: all padded, with zeros that stay zeros. Every product is a fused
multiply-add, every sum has one order, every function is a polynomial of our own, and no fast-math flag lets the
compiler change any of it: the bits depend on neither the processor nor its neighbours. docs/explanation/kernel.md.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# numba infers the types of compiled functions.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fr_ensemble.arrays import Float32, Float64, UInt64
from fr_ensemble.training.compiling import compiled, compiled_and_kept
from fr_ensemble.training.draws import gaussians, shuffle, words
from fr_ensemble.training.tile import at, dot, fma, prefetch, product, transpose

F = np.float32
ZERO, HALF, ONE, TWO = F(0.0), F(0.5), F(1.0), F(2.0)
MIN_MAGNITUDE = F(1e-30)  # what is nearer to zero is zero: denormal numbers cost a hundred cycles each
BETA1, BETA2, EPSILON = 0.9, 0.999, F(1e-8)  # torch.optim.Adam's defaults
KEEP2, NEW1, NEW2 = F(BETA2), F(1.0 - BETA1), F(1.0 - BETA2)
ROOT_HALF, ROOT_TWO_PI = F(0.70710678), F(0.39894228)  # 1 / sqrt(2), 1 / sqrt(2 pi)

# e^x = 2^n e^r (Cephes expf): n by adding 1.5 * 2^23, r with ln 2 in two parts
LOG2E, LN2_HIGH, LN2_LOW, MAGIC, MIN_EXPONENT = (
    F(1.44269504),
    F(-0.693359375),
    F(2.12194440e-4),
    F(12582912.0),
    F(-87.0),
)
E1, E2, E3, E4, E5 = F(1.9875691500e-4), F(1.3981999507e-3), F(8.3334519073e-3), F(4.1665795894e-2), F(1.6666665459e-1)

# 1 - erf(a) = t (A5 + t (A4 + ...)) e^(-a^2), t = 1 / (1 + A0 a): Abramowitz & Stegun 7.1.26, within 1.5e-7
A0, A1, A2, A3, A4, A5 = F(0.3275911), F(1.061405429), F(-1.453152027), F(1.421413741), F(-0.284496736), F(0.254829592)


class TableRows(NamedTuple):
    """The table's rows, and the scale of one fold."""

    rows: Float32  # (n, C): numeric columns, slot, target; see TrainingTable
    scale: Float32  # (2, F + K + 1), means and deviations of the numeric columns and the target
    n_features: int  # F
    n_slots: int  # V


class Settings(NamedTuple):
    """What of a recipe the kernel takes."""

    batch: int  # rows of a batch
    B: int  # the same, padded
    H: int  # hidden units, padded
    rate: float  # learning rate
    decay: np.float32  # Adam's L2 term
    decoupled: float  # AdamW's decay
    noise: np.float32  # of the inputs
    drop: np.uint16  # threshold of dropout in 2^-16
    hide: np.uint16  # of encoder dropout


class State(NamedTuple):
    """What a step changes. Weights: w1 (K, H), w2 (H, H), b2 (H), w3 (H), b3."""

    p: Float32  # weights
    m: Float32  # Adam's moments
    v: Float32
    powers: Float64  # beta1^t, beta2^t after t steps
    streams: UInt64  # (3, 4 * STREAM_LANES), of order, dropout, noise; and of encoders where there is encoder dropout


class Scratch(NamedTuple):
    """Room for one step."""

    order: NDArray[np.int32]  # (rows that the model fits,)
    g: Float32  # gradients, as State.p
    x: Float32  # (B, K)
    z: Float32  # (B, H), as the next four
    h1: Float32
    s1: Float32
    h2: Float32
    s2: Float32
    w2t: Float32  # (H, H)
    errors: Float32  # (B,)
    no_bias: Float32  # (H,), zeros: w1 has a row for it
    dropout_words: UInt64  # 16 bits for each unit of both layers
    jitter: Float32  # (rows of a batch, F + K)
    jitter_words: UInt64
    shuffle_words: UInt64
    encoder_words: UInt64  # 16 bits for each row of a batch


@compiled
def exp(x):
    """e^x for -87 <= x <= 0, to a unit or two in the last place."""
    n = fma(x, LOG2E, MAGIC)
    shift = np.float32(n).view(np.int32) << np.int32(23)
    n = n - MAGIC
    r = fma(n, LN2_LOW, fma(n, LN2_HIGH, x))
    p = fma(fma(fma(fma(fma(E1, r, E2), r, E3), r, E4), r, E5), r, HALF)
    p = fma(p, r * r, r + ONE)
    return np.int32(np.float32(p).view(np.int32) + shift).view(np.float32)


@compiled
def activate(z, bias, h, slope, bits, dropout):
    """h = gelu(z + bias), slope = gelu'(z + bias), row by row; both 0 for units that are out, else times scale.

    dropout: threshold, scale. A unit is out where its 16 random bits are below the threshold.
    """
    threshold, scale = dropout
    width = len(bias)
    for i in range(0, len(z), width):
        zi, hi, si, bi = z[i : i + width], h[i : i + width], slope[i : i + width], bits[i : i + width]
        for j in range(width):
            x = zi[j] + bias[j]
            a = abs(x) * ROOT_HALF
            e = exp(max(-a * a, MIN_EXPONENT))
            t = ONE / fma(a, A0, ONE)
            tail = HALF * (fma(fma(fma(fma(A1, t, A2), t, A3), t, A4), t, A5) * t) * e
            phi = tail if x < ZERO else ONE - tail
            s = scale if bi[j] >= threshold else ZERO
            hi[j] = x * phi * s
            si[j] = fma(x * ROOT_TWO_PI, e, phi) * s


@compiled
def gelu(z, bias):
    """z = gelu(z + bias), row by row, as `activate` computes it."""
    width = len(bias)
    for i in range(0, len(z), width):
        zi = z[i : i + width]
        for j in range(width):
            x = zi[j] + bias[j]
            a = abs(x) * ROOT_HALF
            e = exp(max(-a * a, MIN_EXPONENT))
            t = ONE / fma(a, A0, ONE)
            tail = HALF * (fma(fma(fma(fma(A1, t, A2), t, A3), t, A4), t, A5) * t) * e
            zi[j] = x * (tail if x < ZERO else ONE - tail)


@compiled
def adam(state, g, size, root, decay, shrink):
    """One step of Adam. g: gradients; size: learning rate / (1 - beta1^t); root: 1 / sqrt(1 - beta2^t).

    decay: Adam's L2 term; shrink: what AdamW multiplies weights with (Loshchilov & Hutter 2019), 1 for Adam.
    """
    p, m, v = state.p, state.m, state.v
    for i in range(len(p)):
        pi = p[i]
        gi = fma(pi, decay, g[i])
        mi = fma(NEW1, gi - m[i], m[i])
        vi = fma(NEW2, gi * gi, v[i] * KEEP2)
        mi = ZERO if abs(mi) <= MIN_MAGNITUDE else mi  # written so that NaN stays NaN
        vi = ZERO if vi <= MIN_MAGNITUDE else vi
        pi = fma(pi, shrink, -(size * mi / fma(np.sqrt(vi), root, EPSILON)))
        m[i] = mi
        v[i] = vi
        p[i] = ZERO if abs(pi) <= MIN_MAGNITUDE else pi


@compiled
def head(h2, slope2, w3, errors, gw3, gb2):
    """From the rows' errors: the gradients of w3 and b2, and slope2 becomes the gradient of z2."""
    width = len(w3)
    for j in range(width):
        gw3[j] = ZERO
        gb2[j] = ZERO
    for r in range(len(errors)):
        e = errors[r]
        h, s = h2[r * width : (r + 1) * width], slope2[r * width : (r + 1) * width]
        for j in range(width):
            gw3[j] = fma(e, h[j], gw3[j])
        for j in range(width):
            s[j] *= e * w3[j]
        for j in range(width):
            gb2[j] += s[j]


@compiled
def times(a, b):
    for i in range(len(a)):
        a[i] *= b[i]


@compiled
def read_row(table, index, x):
    """x = [standardised features, one-hot slots, standardised conditioning, 1, 0 ...]; the standardised target."""
    row, mean, std = table.rows[index], table.scale[0], table.scale[1]
    n_features, n_slots = table.n_features, table.n_slots
    n = len(mean) - 1
    for i in range(len(x)):
        x[i] = ZERO
    for i in range(n):
        x[i if i < n_features else i + n_slots] = (row[i] - mean[i]) / std[i]
    x[n_features + np.int64(row[n])] = ONE
    x[n + n_slots] = ONE
    return (row[n + 1] - mean[n]) / std[n]


@compiled
def hide_encoders(table, settings, x, nb, streams, room):
    """In some of the first nb rows of a batch, the slot `unknown`, the last one, in the place of the encoder's own."""
    words(streams[3], room)
    bits, K, first = room.view(np.uint16), len(x) // settings.B, table.n_features
    for r in range(nb):
        if bits[r] < settings.hide:
            slots = x[r * K + first : r * K + first + table.n_slots]
            slots[:] = ZERO
            slots[table.n_slots - 1] = ONE


@compiled
def read_batch(table, order, settings, streams, work):
    """The first rows of order, a batch of them at most: inputs into work.x, targets into work.errors; their number."""
    x, K = work.x, len(work.x) // settings.B
    nb = min(settings.batch, len(order))
    for r in range(nb):
        work.errors[r] = read_row(table, order[r], x[r * K : (r + 1) * K])
    for r in range(nb, min(nb + settings.batch, len(order))):
        prefetch(table.rows, order[r] * table.rows.shape[1])
    x[nb * K :] = ZERO
    if settings.hide > 0:
        hide_encoders(table, settings, x, nb, streams, work.encoder_words)
    if settings.noise > ZERO:
        gaussians(streams[2], work.jitter, work.jitter_words)
        n_numeric = table.scale.shape[1] - 1
        for r in range(nb):
            for i in range(n_numeric):
                column = r * K + (i if i < table.n_features else i + table.n_slots)
                x[column] = fma(work.jitter[r * n_numeric + i], settings.noise, x[column])
    if settings.drop > 0:
        words(streams[1], work.dropout_words)
    return nb


@compiled_and_kept
def train_epochs(table, fitted, settings, state, work, epochs):
    """Train one model for some epochs, on the rows of the table that are marked in `fitted`."""
    batch, B, H, drop = settings.batch, settings.B, settings.H, settings.drop
    n, K = B * H, len(work.x) // B
    ob2, ow3, ob3 = K * H + H * H, K * H + H * H + H, K * H + H * H + 2 * H
    p, g, powers, streams, order, x, errors = (
        state.p,
        work.g,
        state.powers,
        state.streams,
        work.order,
        work.x,
        work.errors,
    )
    z, h1, s1, h2, s2, w2t, none = work.z, work.h1, work.s1, work.h2, work.s2, work.w2t, work.no_bias
    w1, w2, b2, w3 = p[: K * H], p[K * H : ob2], p[ob2:ow3], p[ow3:ob3]
    gw1, gw2, gb2, gw3 = g[: K * H], g[K * H : ob2], g[ob2:ow3], g[ow3:ob3]
    bits = work.dropout_words.view(np.uint16)
    dropout = (drop, F(1.0 / (1.0 - drop / 65536.0)))
    shrink = F(1.0 - settings.rate * settings.decoupled)
    for _ in range(epochs):
        count = 0
        for i in range(len(fitted)):
            if fitted[i]:
                order[count] = i
                count += 1
        shuffle(streams[0], order, work.shuffle_words)
        for first in range(0, count, batch):
            nb = read_batch(table, order[first:], settings, streams, work)
            product(x, (K, 1), w1, z, (B, K, H))  # z1 (B, H)
            activate(z, none, h1, s1, bits[:n], dropout)
            product(h1, (H, 1), w2, z, (B, H, H))  # z2 (B, H)
            activate(z, b2, h2, s2, bits[n:], dropout)
            weight, total = TWO / F(nb), ZERO
            for r in range(nb):
                score = dot(at(h2, r * H), at(w3, 0), H) + p[ob3]
                errors[r] = (score - errors[r]) * weight
                total += errors[r]
            errors[nb:] = ZERO
            g[ob3] = total
            head(h2, s2, w3, errors, gw3, gb2)  # s2 is now the gradient of z2
            product(h1, (1, H), s2, gw2, (H, B, H))
            transpose(w2, w2t, H)
            product(s2, (H, 1), w2t, z, (B, H, H))  # of h1 (B, H)
            times(z, s1)
            product(x, (1, K), z, gw1, (K, B, H))
            powers[0] *= BETA1
            powers[1] *= BETA2
            size, root = F(settings.rate / (1.0 - powers[0])), F(1.0 / np.sqrt(1.0 - powers[1]))
            adam(state, g, size, root, settings.decay, shrink)


@compiled_and_kept
def scores(table, chosen, p, H, out):
    """Standardised scores of the chosen rows, float32, without dropout. p as `train_epochs` leaves it."""
    B = 64
    K = (table.scale.shape[1] + table.n_slots + 3) // 4 * 4
    ow2 = K * H
    ob2, ow3, ob3 = ow2 + H * H, ow2 + H * H + H, ow2 + H * H + 2 * H
    x, z1, z2, none = np.zeros(B * K, F), np.zeros(B * H, F), np.zeros(B * H, F), np.zeros(H, F)
    for first in range(0, len(chosen), B):
        nb = min(B, len(chosen) - first)
        for r in range(nb):
            read_row(table, chosen[first + r], x[r * K : (r + 1) * K])
        product(x, (K, 1), p[:ow2], z1, (B, K, H))
        gelu(z1, none)
        product(z1, (H, 1), p[ow2:ob2], z2, (B, H, H))
        gelu(z2, p[ob2:ow3])
        for r in range(nb):
            out[first + r] = dot(at(z2, r * H), at(p, ow3), H) + p[ob3]
