"""runtimes.py: what the oldest runtime of a kind's entries loads, as a policy says it, and profiles that ship.

A profile never changes: another release of its runtime takes another name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from registry_tool.onnx_summary import OnnxSummary
from registry_tool.values import Policy


@dataclass(frozen=True, slots=True)
class Runtime:
    """Limits of a runtime; None is none. operators: of the standard domain, the only one that it knows, where given."""

    name: str = ""
    max_opset: int | None = None
    max_ir_version: int | None = None
    operators: frozenset[str] | None = None
    max_loops: int | None = None  # Loop nodes in all graphs together

    @classmethod
    def of(cls, policy: Policy) -> Runtime:
        """The profile that a policy names, with its own limits in the place of the profile's."""
        own = {name: policy.extra[name] for name in LIMITS if name in policy.extra}
        if "operators" in own:
            own["operators"] = frozenset(own["operators"])
        return replace(RUNTIMES.get(policy.extra.get("runtime", ""), cls()), **own)

    @property
    def subject(self) -> str:
        """What findings call it."""
        return f"runtime {self.name!r}" if self.name else "the policy's runtime"

    def is_looser_than(self, other: Runtime) -> bool:
        """Whether it may load what `other` refuses, as far as the limits show it."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("max_opset", "max_ir_version", "max_loops"))
        if any(limit is not None and (own is None or own > limit) for own, limit in pairs):
            return True
        return other.operators is not None and (self.operators is None or not self.operators <= other.operators)

    def refusals(self, summary: OnnxSummary) -> Iterator[tuple[str, str]]:
        """Why it does not load a model: (what was found, what it takes). Opset and IR version are apart."""
        if self.operators is not None:
            names = sorted(
                f"{domain}::{op}" if domain else op for domain, op in summary.ops if domain or op not in self.operators
            )
            if names:
                yield f"the operators {', '.join(names)}", f"some of its {len(self.operators)}"
        loops = sum(node.op == "Loop" for node in summary.sized)
        if self.max_loops is not None and loops > self.max_loops:
            yield f"{loops} Loop nodes", f"at most {self.max_loops}"


LIMITS = ("max_opset", "max_ir_version", "operators", "max_loops")
# What libvmaf's loader of small models takes, and the bound of its registry's schema (the public fork lusoris/vmaf,
# core/src/dnn/, May 2026). Opset 21 is of IR version 10.
LIBVMAF_OPS = frozenset(
    word
    for line in """
    Abs Add AveragePool BatchNormalization BitShift Cast Clip Concat Constant ConstantOfShape Conv ConvTranspose
    DequantizeLinear Div Dropout Elu Erf Exp Expand Flatten Gather GatherND Gelu Gemm GlobalAveragePool
    GlobalMaxPool HardSigmoid HardSwish Identity If InstanceNormalization LayerNormalization LeakyRelu Log Loop
    MatMul Max MaxPool Mean Min Mul Neg PRelu Pad Pow QuantizeLinear Reciprocal ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum Relu Reshape Resize ScatterND Selu Shape Sigmoid Slice Softmax Softplus Softsign Sqrt
    Squeeze Sub Sum Tanh Transpose Unsqueeze
    """.strip().splitlines()
    for word in line.split()
)
RUNTIMES: Mapping[str, Runtime] = MappingProxyType({"libvmaf": Runtime("libvmaf", 21, 10, LIBVMAF_OPS, max_loops=16)})


def is_looser(policy: Policy, other: Policy) -> bool:
    """Whether a policy lets through what `other` does not: evidence, signers, or a model that its runtime refuses."""
    return policy.is_looser_than(other) or Runtime.of(policy).is_looser_than(Runtime.of(other))
