"""draws.py: a model's random numbers: the order of its rows, who drops out, noise on its inputs. Trains nothing.

Each model has a stream for each role, so that its numbers depend on its own key alone. A stream is eight SFC64
generators (numpy's, Doty-Humphrey) side by side, one a lane of a vector: word 8 i + lane is word i of that generator.
Everything that follows is integer arithmetic, or float64 without a function of the C library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import ir
from numba import types

from fr_ensemble.arrays import UInt64
from fr_ensemble.training.compiling import Intrinsic, compiled, intrinsic

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing import Context, Signature

STREAM_LANES = 8
WARM_UP = 12  # words that numpy's SFC64 leaves out after seeding
RATE_STEPS = 2**16  # of a rate: what 16 bits tell apart
SHUFFLE_WORDS = 512  # words that a shuffle draws at a time
WORDS = types.CPointer(types.uint64)

# Wichura 1988, AS 241, PPND7: the normal quantile to 1e-7, in a centre and two tails, as ratios of polynomials
CENTRE, SPLIT_TAIL = 0.425, 5.0
A0, A1, A2, A3 = 3.3871327179, 50.434271938, 159.29113202, 59.109374720
B1, B2, B3 = 17.895169469, 78.757757664, 67.187563600
C0, C1, C2, C3 = 1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103
D1, D2 = 0.73700164250, 0.12021132975
E0, E1, E2, E3 = 6.6579051150, 3.0812263860, 0.42868294337, 0.017337203997
F1, F2 = 0.24197894225, 0.012258202635
LN2 = 0.6931471805599453


def stream(entropy: np.random.SeedSequence) -> UInt64:
    """A stream's first state, uint64 (4, STREAM_LANES)."""
    state = np.ones((4, STREAM_LANES), np.uint64)
    state[:3] = entropy.generate_state(3 * STREAM_LANES, np.uint64).reshape(STREAM_LANES, 3).T
    words(state.reshape(-1), np.empty(WARM_UP * STREAM_LANES, np.uint64))
    return state


def words_of_halves(count: int) -> int:
    """Words, as many as `words` can fill, that have this many numbers of 16 bits."""
    return -(-count // (4 * STREAM_LANES)) * STREAM_LANES


@intrinsic
def _pointer(ctx: Context, array: types.Type) -> Intrinsic:
    def generate(cx: BaseContext, b: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
        return cx.make_array(sig.args[0])(cx, b, args[0]).data

    return WORDS(array), generate


@intrinsic
def _sfc64(ctx: Context, state: types.Type, out: types.Type, n: types.Type) -> Intrinsic:
    """Fill out, n words, from a state of four rows of STREAM_LANES words."""

    def generate(cx: BaseContext, b: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
        state, out, n = args
        i64 = ir.IntType(64)
        kind = ir.VectorType(i64, STREAM_LANES)

        def address(base: ir.Value, offset: ir.Value) -> ir.Value:
            return b.bitcast(b.gep(base, [offset]), kind.as_pointer())

        def constant(value: int) -> ir.Constant:
            return kind([value] * STREAM_LANES)

        first = [b.load(address(state, i64(STREAM_LANES * row)), align=8) for row in range(4)]
        before, loop, after = b.basic_block, b.append_basic_block("loop"), b.append_basic_block("after")
        b.branch(loop)
        b.position_at_end(loop)
        i = b.phi(i64)
        a, c, d, count = (b.phi(kind) for _ in range(4))
        word = b.add(b.add(a, c), count)
        turned = b.or_(b.shl(d, constant(24)), b.lshr(d, constant(40)))
        new = [
            b.xor(c, b.lshr(c, constant(11))),
            b.add(d, b.shl(d, constant(3))),
            b.add(turned, word),
            b.add(count, constant(1)),
        ]
        b.store(word, address(out, i), align=8)
        following = b.add(i, i64(STREAM_LANES))
        for phi, start, end in zip((i, a, c, d, count), (i64(0), *first), (following, *new), strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(end, loop)
        b.cbranch(b.icmp_signed("<", following, n), loop, after)
        b.position_at_end(after)
        for row, value in enumerate(new):
            b.store(value, address(state, i64(STREAM_LANES * row)), align=8)
        return cx.get_dummy_value()

    return types.void(WORDS, WORDS, types.intp), generate


@compiled
def words(state, out):  # type: ignore[no-untyped-def]  # numba infers them
    """Fill out with a stream's next words; its length is a multiple of STREAM_LANES, at least one."""
    _sfc64(_pointer(state), _pointer(out), len(out))


@compiled
def shuffle(state, order, room):  # type: ignore[no-untyped-def]  # numba infers them
    """Shuffle order (Fisher & Yates), each place drawn without bias (Lemire 2019). room: SHUFFLE_WORDS words."""
    halves = room.view(np.uint32)
    used = len(halves)
    for i in range(len(order) - 1, 0, -1):
        bound = np.uint64(i + 1)
        while True:
            if used == len(halves):
                words(state, room)
                used = 0
            scaled = np.uint64(halves[used]) * bound
            used += 1
            low = scaled & np.uint64(0xFFFFFFFF)
            if low >= bound or low >= (np.uint64(1 << 32) - bound) % bound:
                break
        j = np.int64(scaled >> np.uint64(32))
        order[i], order[j] = order[j], order[i]


@compiled
def log(x):  # type: ignore[no-untyped-def]  # numba infers them
    """Natural logarithm of a normal float64 above 0, to a few units in the last place: 2 artanh((m - 1) / (m + 1))."""
    raw = np.float64(x).view(np.int64)
    exponent = (raw >> np.int64(52)) - np.int64(1023)
    m = np.int64((raw & np.int64(0xFFFFFFFFFFFFF)) | np.int64(0x3FF0000000000000)).view(np.float64)
    if m > 1.4142135623730951:
        m *= 0.5
        exponent += np.int64(1)
    s = (m - 1.0) / (m + 1.0)
    square = s * s
    total = 0.0
    for k in range(21, 0, -2):
        total = total * square + 1.0 / k
    return 2.0 * s * total + exponent * LN2


@compiled
def normal_quantile(p):  # type: ignore[no-untyped-def]  # numba infers them
    """Quantile of the standard normal, 0 < p < 1, to 1e-7."""
    q = p - 0.5
    if abs(q) <= CENTRE:
        r = CENTRE * CENTRE - q * q
        return q * (((A3 * r + A2) * r + A1) * r + A0) / (((B3 * r + B2) * r + B1) * r + 1.0)
    r = np.sqrt(-log(p if q < 0.0 else 1.0 - p))
    if r <= SPLIT_TAIL:
        r -= 1.6
        value = (((C3 * r + C2) * r + C1) * r + C0) / ((D2 * r + D1) * r + 1.0)
    else:
        r -= SPLIT_TAIL
        value = (((E3 * r + E2) * r + E1) * r + E0) / ((F2 * r + F1) * r + 1.0)
    return -value if q < 0.0 else value


@compiled
def gaussians(state, out, room):  # type: ignore[no-untyped-def]  # numba infers them
    """Fill out, float32, with standard normal numbers. room: as many words, up to a multiple of STREAM_LANES."""
    words(state, room)
    for i in range(len(out)):
        out[i] = normal_quantile((np.float64(room[i] >> np.uint64(12)) + 0.5) * 2.0**-52)
