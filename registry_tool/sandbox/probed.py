"""probed.py: what the child process can find on a model. Looks at none.

`{reason}` is what was seen, in the words of onnx, of onnxruntime or of the child.
"""

from __future__ import annotations

from registry_tool.findings import FindingRule, Severity

EXPORT_AGAIN_HINT = "export the model again"
LIMITS_HINT = f"{EXPORT_AGAIN_HINT}: onnxruntime must load and run it within 1 GiB of memory and 10 s of processor time"

UNREADABLE = FindingRule(
    "onnx-unreadable",
    "not a readable ONNX model",
    why="What cannot be read cannot be checked.",
    message="not a readable ONNX model: {reason}",
    hint="restore the file, or export the model again",
    example="the last bytes are cut off",
)
INVALID = FindingRule(
    "onnx-invalid",
    "invalid ONNX model",
    why="Runtimes refuse it, or guess.",
    message="onnx's checker refuses the model: {reason}",
    hint=EXPORT_AGAIN_HINT,
    example="a node reads a name that nothing makes",
)
SHAPES = FindingRule(
    "onnx-shapes",
    "types or shapes in the graph do not match",
    why="It fails on the first row.",
    message="types or shapes in the graph do not match: {reason}",
    hint=EXPORT_AGAIN_HINT,
    example="6 features into a layer of 5",
)
NEWER = FindingRule(
    "onnx-newer",
    "model newer than the installed onnx or onnxruntime",
    why="What is not known to them cannot be checked.",
    message="the model is newer than the installed libraries: {reason}",
    hint="upgrade onnx and onnxruntime, or export the model with an older IR version and opset",
    example="IR version 15",
)
LOOP = FindingRule(
    "onnx-loop",
    "Loop without a constant, small trip count",
    why="An input could make it run for ever. Trip counts of nested loops are multiplied; a branch that is never taken "
    "counts like any other.",
    message="a loop runs too often: {reason}",
    hint="export the model with a fixed, small number of iterations",
    example="a trip count computed from the input",
)
ALLOCATION = FindingRule(
    "onnx-allocation",
    "huge tensor",
    why="A file of a few bytes takes all memory. A branch that is never taken counts like any other.",
    message="the model allocates a huge tensor: {reason}",
    hint=EXPORT_AGAIN_HINT,
    example="ConstantOfShape of 2^40",
)
UNRUN = FindingRule(
    "onnx-probe-unrun",
    "model that was loaded but not run",
    why="No size tried for its open axes, and no integer for its inputs, lets it run: its outputs were not seen.",
    message="the model was loaded but not run: {reason}",
    hint="export the model with the sizes that it needs, or check it by hand",
    example="an audio model that takes exactly 512 samples",
    severity=Severity.WARNING,
)
OUTPUT_NOT_FINITE = FindingRule(
    "onnx-output-not-finite",
    "output that is always NaN or infinite",
    why="It scores nothing, whatever goes in: rows of random numbers of six scales gave no number.",
    message="an output is always NaN or infinite: {reason}",
    hint="check the export: an operator makes NaN or infinity of every input",
    example="0 / 0 added to the score",
)
OUTPUT_CONSTANT = FindingRule(
    "onnx-output-constant",
    "outputs that do not depend on the inputs",
    why="It scores nothing: every input gets the same.",
    message="all outputs are constant: {reason}",
    hint="check the export: nothing that goes in reaches the outputs",
    example="95 on all of 12 rows",
)
OUTPUT_IDLE = FindingRule(
    "onnx-output-idle",
    "output that does not depend on the inputs",
    why="It carries no information; or the model takes integers that the probe does not guess.",
    message="an output is constant: {reason}",
    hint="export the model without that output, or check it by hand",
    example="sigma is 1 on all of 12 rows",
    severity=Severity.WARNING,
)
BRANCH_UNPROBED = FindingRule(
    "onnx-branch-unprobed",
    "branch that no probe entered",
    why="Its operators and sizes were checked; what it computes for the inputs that lead there was not seen.",
    message="no probe entered a branch: {reason}",
    hint="check by hand what it computes, or export the model without it",
    example="then_branch of If",
    severity=Severity.WARNING,
)
PROBE_REFUSED = FindingRule(
    "onnx-probe-refused",
    "onnxruntime cannot load or run the model",
    why="A runtime that loads it fails.",
    message="onnxruntime cannot load or run the model: {reason}",
    hint=LIMITS_HINT,
    example="a Reshape that never fits",
)
MEMORY_LIMIT = FindingRule(
    "onnx-probe-memory",
    "memory limit of 1 GiB exceeded",
    why="A runtime that loads it is killed, or the machine swaps.",
    message="the model needs more than 1 GiB of memory: {reason}",
    hint=LIMITS_HINT,
    example="an Expand to 2^40 elements",
)
TIME_LIMIT = FindingRule(
    "onnx-probe-time",
    "time limit of 10 s exceeded",
    why="A runtime that runs it hangs.",
    message="the model does not finish: {reason}",
    hint=LIMITS_HINT,
    example="a Loop within a Loop",
)
PROBE_CRASHED = FindingRule(
    "onnx-probe-crashed",
    "the model crashes the process that reads or runs it",
    why="It crashes a runtime too, or does worse.",
    message="the model crashes the process that reads or runs it: {reason}",
    hint="do not load it; report it to onnxruntime",
    example="signal 11",
)
PROBED_RULES = {
    rule.code: rule
    for rule in (
        UNREADABLE,
        INVALID,
        SHAPES,
        NEWER,
        LOOP,
        ALLOCATION,
        PROBE_REFUSED,
        UNRUN,
        OUTPUT_NOT_FINITE,
        OUTPUT_CONSTANT,
        OUTPUT_IDLE,
        BRANCH_UNPROBED,
        MEMORY_LIMIT,
        TIME_LIMIT,
        PROBE_CRASHED,
    )
}
BY_LIMITS = (MEMORY_LIMIT.code, TIME_LIMIT.code, PROBE_CRASHED.code)  # what a limit that is too low can cause
