"""operators.py: the ONNX operators that a model may have. A kind can narrow the list."""

from __future__ import annotations

# Plain tensor operators: what small networks for video quality and video filters are made of, by use. Each computes
# from its inputs alone. Left out on purpose: random numbers, strings, sequences, optionals, image decoding, custom
# domains, and what only detectors or language models need.
ALLOWED_OPS: frozenset[str] = frozenset(
    word
    for line in """
    elementwise   Abs Add Ceil Clip Cos Div Erf Exp Floor Log Max Mean Min Mod Mul Neg Pow Reciprocal Round Sign Sin
                  Sqrt Sub Sum Tan
    compare       And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Where Xor
    activation    Celu Elu Gelu HardSigmoid HardSwish LeakyRelu LogSoftmax Mish PRelu Relu Selu Sigmoid Softmax
                  Softplus Softsign Tanh ThresholdedRelu
    network       BatchNormalization Conv ConvTranspose Dropout Einsum Gemm GRU GroupNormalization
                  InstanceNormalization LayerNormalization LpNormalization LRN LSTM MatMul
                  MeanVarianceNormalization RNN
    pooling       AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool
    image         DepthToSpace GridSample Pad Resize SpaceToDepth Upsample
    quantised     ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul
                  QuantizeLinear
    reduction     ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
                  ReduceProd ReduceSum ReduceSumSquare TopK
    shape         Cast CastLike Concat Constant ConstantOfShape Expand Flatten Gather GatherElements GatherND Identity
                  OneHot Range Reshape ScatterElements ScatterND Shape Size Slice Split Squeeze Tile Transpose Trilu
                  Unsqueeze
    control       If Loop Scan
    """.strip().splitlines()
    for word in line.split()
    if word[0].isupper()
)
