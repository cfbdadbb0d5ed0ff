"""tile.py: what numba does not write well by itself, as LLVM: fused multiply-adds, a product's inner tile, a dot
product, a transposition. Knows no network.

Each number that comes out is one sum in one order: c[r, j] adds its k products from the first to the last, whatever the
tile's shape. So the bits are the same for every processor with a fused multiply-add, and the shape is free to follow
the registers. docs/explanation/kernel.md has the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fr_ensemble.training.compiling import Function, Intrinsic, compiled, has_fma, has_wide_registers, intrinsic

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing import Context, Signature

REGISTER_FLOATS = 8  # floats of an AVX register; the parts in which `dot` adds
TILE_COLUMNS = 16  # a product's width is a multiple: the narrow tile's columns
TILE_ROWS = 4  # a product's height is a multiple
NARROW_SHAPE = (4, 2, 8)  # rows, vectors a row, lanes a vector: 8 sums in 8 of 16 AVX registers
WIDE_SHAPE = (4, 4, 16)  # 16 sums in 16 of 32 AVX-512 registers
WIDE_COLUMNS = 64 if has_wide_registers() else TILE_COLUMNS
POINTER = types.CPointer(types.float32)
I64 = ir.IntType(64)
FLOAT = ir.FloatType()


def _fused(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x * y + z, rounded once; twice where the processor has no such instruction."""
    if not has_fma():
        return b.fadd(b.fmul(x, y), z)
    suffix = f"v{x.type.count}f32" if isinstance(x.type, ir.VectorType) else "f32"
    name = f"llvm.fma.{suffix}"
    return b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(x.type, [x.type] * 3), name), [x, y, z])


def _vector(b: ir.IRBuilder, base: ir.Value, offset: ir.Value, kind: ir.VectorType) -> ir.Value:
    return b.bitcast(b.gep(base, [offset]), kind.as_pointer())


def _spread(b: ir.IRBuilder, scalar: ir.Value, kind: ir.VectorType) -> ir.Value:
    one = b.insert_element(kind(ir.Undefined), scalar, ir.IntType(32)(0))
    zeros = ir.VectorType(ir.IntType(32), kind.count)([0] * kind.count)
    return b.shuffle_vector(one, kind(ir.Undefined), zeros)


@intrinsic
def fma(ctx: Context, x: types.Type, y: types.Type, z: types.Type) -> Intrinsic:
    """x * y + z of three float32."""

    def generate(cx: BaseContext, b: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
        return _fused(b, *args)

    return types.float32(types.float32, types.float32, types.float32), generate


@intrinsic
def at(ctx: Context, array: types.Type, offset: types.Type) -> Intrinsic:
    """The address of array[offset], for a contiguous float32 array."""

    def generate(cx: BaseContext, b: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
        return b.gep(cx.make_array(sig.args[0])(cx, b, args[0]).data, [args[1]])

    return POINTER(array, types.intp), generate


@intrinsic
def prefetch(ctx: Context, array: types.Type, offset: types.Type) -> Intrinsic:
    """Have the cache line of array[offset] fetched while other work is done; changes nothing."""

    def generate(cx: BaseContext, b: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
        place = b.gep(cx.make_array(sig.args[0])(cx, b, args[0]).data, [args[1]])
        b.call(function, [b.bitcast(place, pointer), number(0), number(3), number(1)])  # to read, to keep, data
        return cx.get_dummy_value()

    return types.void(array, types.intp), generate


def _tile(rows: int, vectors: int, lanes: int) -> Function:
    @intrinsic
    def tile(
        ctx: Context, a: types.Type, strides: types.Type, w: types.Type, c: types.Type, sizes: types.Type
    ) -> Intrinsic:
        """c[r * width + j] = sum over i below k of a[r * row + i * step] * w[i * width + j].

        strides: row, step. sizes: k, width.
        """
        pair = types.UniTuple(types.intp, 2)
        signature = types.void(POINTER, pair, POINTER, POINTER, pair)

        def generate(cx: BaseContext, b: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
            a, strides, w, c, sizes = args
            (row, step), (k, width) = cgutils.unpack_tuple(b, strides), cgutils.unpack_tuple(b, sizes)
            kind = ir.VectorType(FLOAT, lanes)
            before, loop, after = b.basic_block, b.append_basic_block("loop"), b.append_basic_block("after")
            b.branch(loop)
            b.position_at_end(loop)
            i = b.phi(I64)
            i.add_incoming(I64(0), before)
            sums = [[b.phi(kind) for _ in range(vectors)] for _ in range(rows)]
            line = b.mul(i, width)
            right = [b.load(_vector(b, w, b.add(line, I64(j * lanes)), kind), align=4) for j in range(vectors)]
            for r, row_sums in enumerate(sums):
                left = _spread(b, b.load(b.gep(a, [b.add(b.mul(i, step), b.mul(row, I64(r)))])), kind)
                for j, total in enumerate(row_sums):
                    total.add_incoming(kind([0.0] * lanes), before)
                    row_sums[j] = _fused(b, left, right[j], total)
                    total.add_incoming(row_sums[j], loop)
            following = b.add(i, I64(1))
            i.add_incoming(following, loop)
            b.cbranch(b.icmp_signed("<", following, k), loop, after)
            b.position_at_end(after)
            for r, row_sums in enumerate(sums):
                for j, total in enumerate(row_sums):
                    b.store(total, _vector(b, c, b.add(b.mul(width, I64(r)), I64(j * lanes)), kind), align=4)
            return cx.get_dummy_value()

        return signature, generate

    return tile


narrow_tile = _tile(*NARROW_SHAPE)
wide_tile = _tile(*(WIDE_SHAPE if has_wide_registers() else NARROW_SHAPE))


@intrinsic
def dot(ctx: Context, a: types.Type, b_: types.Type, n: types.Type) -> Intrinsic:
    """Sum of a[i] * b[i], n a multiple of REGISTER_FLOATS: eight sums, added in halves (4 + 4, 2 + 2, 1 + 1)."""

    def generate(cx: BaseContext, b: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
        left, right, n = args
        kind = ir.VectorType(FLOAT, REGISTER_FLOATS)
        before, loop, after = b.basic_block, b.append_basic_block("loop"), b.append_basic_block("after")
        b.branch(loop)
        b.position_at_end(loop)
        i, total = b.phi(I64), b.phi(kind)
        i.add_incoming(I64(0), before)
        total.add_incoming(kind([0.0] * REGISTER_FLOATS), before)
        x, y = (b.load(_vector(b, base, i, kind), align=4) for base in (left, right))
        new, following = _fused(b, x, y, total), b.add(i, I64(REGISTER_FLOATS))
        i.add_incoming(following, loop)
        total.add_incoming(new, loop)
        b.cbranch(b.icmp_signed("<", following, n), loop, after)
        b.position_at_end(after)
        half = REGISTER_FLOATS // 2
        while half:
            places = [*range(half, 2 * half), *[0] * (REGISTER_FLOATS - half)]
            other = b.shuffle_vector(new, kind(ir.Undefined), ir.VectorType(ir.IntType(32), REGISTER_FLOATS)(places))
            new, half = b.fadd(new, other), half // 2
        return b.extract_element(new, ir.IntType(32)(0))

    return types.float32(POINTER, POINTER, types.intp), generate


@intrinsic
def turn(ctx: Context, a: types.Type, row: types.Type, c: types.Type, column: types.Type) -> Intrinsic:
    """c[j * column + i] = a[i * row + j], i and j below REGISTER_FLOATS: a square block, turned by swaps."""

    def generate(cx: BaseContext, b: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
        a, row, c, column = args
        kind, places = ir.VectorType(FLOAT, REGISTER_FLOATS), ir.VectorType(ir.IntType(32), REGISTER_FLOATS)
        x = [b.load(_vector(b, a, b.mul(row, I64(i)), kind), align=4) for i in range(REGISTER_FLOATS)]
        for s in (4, 2, 1):
            low = places([REGISTER_FLOATS + lane - s if lane & s else lane for lane in range(REGISTER_FLOATS)])
            high = places([REGISTER_FLOATS + lane if lane & s else lane + s for lane in range(REGISTER_FLOATS)])
            for i in range(REGISTER_FLOATS):
                if not i & s:
                    x[i], x[i + s] = b.shuffle_vector(x[i], x[i + s], low), b.shuffle_vector(x[i], x[i + s], high)
        for i in range(REGISTER_FLOATS):
            b.store(x[i], _vector(b, c, b.mul(column, I64(i)), kind), align=4)
        return cx.get_dummy_value()

    return types.void(POINTER, types.intp, POINTER, types.intp), generate


@compiled
def transpose(a, c, n):  # type: ignore[no-untyped-def]  # numba infers them
    """C (n, n) = A (n, n) turned, both flat; n a multiple of REGISTER_FLOATS."""
    for r in range(0, n, REGISTER_FLOATS):
        for j in range(0, n, REGISTER_FLOATS):
            turn(at(a, r * n + j), n, at(c, j * n + r), n)


@compiled
def product(a, strides, w, c, shape):  # type: ignore[no-untyped-def]  # numba infers them
    """C (n, width) = A (n, k) W (k, width), all flat. shape: n, k, width.

    strides: row, step, so that A[r, i] = a[r * row + i * step]: a transposed A is the same array with other strides.
    """
    row, step = strides
    n, k, width = shape
    j = 0
    while j + WIDE_COLUMNS <= width:
        for r in range(0, n, TILE_ROWS):
            wide_tile(at(a, r * row), (row, step), at(w, j), at(c, r * width + j), (k, width))
        j += WIDE_COLUMNS
    while j < width:
        for r in range(0, n, TILE_ROWS):
            narrow_tile(at(a, r * row), (row, step), at(w, j), at(c, r * width + j), (k, width))
        j += TILE_COLUMNS
