"""A product and a transformer block by PyTorch or ONNX Runtime, for `parts`; sizes and numbers as in part.rs.

    python benches/peers/python_parts.py torch|torch-compiled|onnxruntime [--dtype f32|bf16] [--threads N]

Prints one JSON object a measurement. ONNX Runtime measures f32 only: its CPU provider has no bf16 product.
"""
import argparse
import json
import time
from statistics import median

import numpy as np

WIDTH, HIDDEN, HEADS = 768, 3072, 16
ROWS, SEQUENCES, PLACES = (1, 2, 16, 64, 512), 2, (576, 64)
PRODUCTS, BLOCKS = 16, 4
NORM, QKV, PROJ, FC1, FC2 = [(0, WIDTH), (0, WIDTH)], [(3 * WIDTH, WIDTH), (0, 3 * WIDTH)], [(WIDTH, WIDTH), (0, WIDTH)], \
    [(HIDDEN, WIDTH), (0, HIDDEN)], [(WIDTH, HIDDEN), (0, WIDTH)]
BLOCK = NORM + QKV + PROJ + NORM + FC1 + FC2


def numbers(shape, seed):
    x = np.arange(np.prod(shape), dtype=np.uint32) ^ np.uint32(seed * 0x9E3779B9 % 2**32)
    x = (x ^ x >> 16) * np.uint32(0x7FEB352D)
    x = (x ^ x >> 15) * np.uint32(0x846CA68B)
    return (((x ^ x >> 16) >> 8).astype(np.float32) / 2**23 - 1).reshape(shape)


def tensor(rows, cols, seed):
    return numbers((rows, cols), seed) / np.sqrt(np.float32(cols)) if rows else np.float32(0.1) * numbers((cols,), seed)


def product_weights():
    return [(tensor(HIDDEN, WIDTH, 2 * i), tensor(0, HIDDEN, 2 * i + 1)) for i in range(1, PRODUCTS + 1)]


def block_weights():
    return [[tensor(*shape, 100 * i + j) for j, shape in enumerate(BLOCK)] for i in range(1, BLOCKS + 1)]


class Torch:
    """Weights are parameters, so that compiling with `freezing` can lay them out anew."""

    def __init__(self, dtype, threads, compiled):
        import torch
        import torch.nn.functional as F

        torch.set_grad_enabled(False)
        torch.set_num_threads(threads)
        self.torch, self.dtype, self.compiled = torch, {"f32": torch.float32, "bf16": torch.bfloat16}[dtype], compiled
        self.name = "torch " + torch.__version__.split("+")[0] + (", compiled" if compiled else "")

        class Products(torch.nn.Module):
            def forward(self, x):
                return [F.linear(x, *layer) for layer in self.layers]

        class Blocks(torch.nn.Module):
            def forward(self, x):
                for n1w, n1b, qkv, qkv_b, proj, proj_b, n2w, n2b, fc1, fc1_b, fc2, fc2_b in self.layers:
                    h = F.linear(F.layer_norm(x, (WIDTH,), n1w, n1b, 1e-6), qkv, qkv_b)
                    q, k, v = h.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
                    a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
                    x = x + F.linear(a, proj, proj_b)
                    x = x + F.linear(F.gelu(F.linear(F.layer_norm(x, (WIDTH,), n2w, n2b, 1e-6), fc1, fc1_b)), fc2, fc2_b)
                return [x]

        self.products, self.blocks = Products, Blocks

    def prepare(self, network, weights, x):
        torch = self.torch
        to = lambda array: torch.from_numpy(array).to(self.dtype)
        module = network()
        module.layers = [torch.nn.ParameterList(torch.nn.Parameter(to(w), requires_grad=False) for w in layer) for layer in weights]
        module.layers = torch.nn.ModuleList(module.layers)
        x = to(x)
        if self.compiled:
            torch.compiler.reset()
            module = torch.compile(module.eval(), options={"freezing": True})
        return lambda: module(x)[-1], lambda out: out.float().numpy()

    def product(self, rows):
        return self.prepare(self.products, product_weights(), numbers((rows, WIDTH), 0))

    def block(self, places):
        return self.prepare(self.blocks, block_weights(), numbers((SEQUENCES, places, WIDTH), 0))


class OnnxRuntime:
    """Graphs as its own optimiser leaves them for transformers: with its fused attention."""

    def __init__(self, threads):
        import onnx
        import onnxruntime

        self.onnx, self.ort, self.threads = onnx, onnxruntime, threads
        self.name = "onnxruntime " + onnxruntime.__version__

    def prepare(self, nodes, weights, x, outputs, width):
        onnx, ort = self.onnx, self.ort
        value = lambda name, cols: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [*x.shape[:-1], cols])
        graph = onnx.helper.make_graph(
            nodes, "part", [value("x", x.shape[-1])], [value(name, width) for name in outputs],
            [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()])
        opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        # Inputs and outputs stay where they are: no copies in what is measured.
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x))
        for name in outputs:
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(np.empty((*x.shape[:-1], width), np.float32)))
        return lambda: session.run_with_iobinding(binding), lambda _: binding.get_outputs()[-1].numpy()

    def dense(self, weights, name, x, out, w, b):
        """Nodes of `out = x W^T + b`; a product's constant right side is packed as the graph is loaded."""
        weights[name + ".w"], weights[name + ".b"] = np.ascontiguousarray(w.T), b
        node = self.onnx.helper.make_node
        return [node("MatMul", [x, name + ".w"], [out + ".product"]), node("Add", [out + ".product", name + ".b"], [out])]

    def product(self, rows):
        weights, nodes, outputs = {}, [], []
        for i, (w, b) in enumerate(product_weights()):
            outputs.append(f"y{i}")
            nodes += self.dense(weights, f"w{i}", "x", outputs[-1], w, b)
        return self.prepare(nodes, weights, numbers((rows, WIDTH), 0), outputs, HIDDEN)

    def block(self, places):
        node = self.onnx.helper.make_node
        weights, nodes, x = {"thirds": np.array([WIDTH] * 3, np.int64)}, [], "x"
        for i, w in enumerate(block_weights()):
            p = f"b{i}."
            for name, (scale, shift) in (("n1", w[0:2]), ("n2", w[6:8])):
                weights[p + name + ".w"], weights[p + name + ".b"] = scale, shift
            norm = lambda name, x: node("LayerNormalization", [x, p + name + ".w", p + name + ".b"], [p + name], axis=-1, epsilon=1e-6)
            nodes.append(norm("n1", x))
            nodes += self.dense(weights, p + "qkv", p + "n1", p + "h", *w[2:4])
            nodes.append(node("Split", [p + "h", "thirds"], [p + "q", p + "k", p + "v"], axis=-1))
            nodes.append(node("MultiHeadAttention", [p + t for t in "qkv"], [p + "a"], domain="com.microsoft", num_heads=HEADS))
            nodes += self.dense(weights, p + "proj", p + "a", p + "projected", *w[4:6])
            nodes.append(node("Add", [x, p + "projected"], [p + "x"]))
            nodes.append(norm("n2", p + "x"))
            nodes += self.dense(weights, p + "fc1", p + "n2", p + "f", *w[8:10])
            nodes.append(node("Gelu", [p + "f"], [p + "g"]))
            nodes += self.dense(weights, p + "fc2", p + "g", p + "d", *w[10:12])
            x = p + "y"
            nodes.append(node("Add", [p + "x", p + "d"], [x]))
        return self.prepare(nodes, weights, numbers((SEQUENCES, places, WIDTH), 0), [x], WIDTH)


def seconds(run):
    """Median seconds of a run, after two to warm up."""
    run(), run()
    start, times = time.perf_counter(), []
    while len(times) < 5 or time.perf_counter() - start < 0.3:
        at = time.perf_counter()
        run()
        times.append(time.perf_counter() - at)
    return median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("engine", choices=("torch", "torch-compiled", "onnxruntime"))
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    if args.engine == "onnxruntime":
        engine = OnnxRuntime(args.threads)
    else:
        engine = Torch(args.dtype, args.threads, args.engine == "torch-compiled")
    for part, size, rows, count in [("product", r, r, PRODUCTS) for r in ROWS] + [("block", n, SEQUENCES * n, BLOCKS) for n in PLACES]:
        run, read = getattr(engine, part)(size)
        mean = float(np.abs(read(run())).mean())
        print(json.dumps({"engine": engine.name, "dtype": args.dtype, "part": part, "rows": rows,
                          "seconds": float(f"{seconds(run) / count:.4g}"), "mean": round(mean, 6)}), flush=True)


if __name__ == "__main__":
    main()
