"""Graphs of a few nodes for tests of patches: building blocks in, checked ONNX models out; and what they compute."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

F, BOOL, I64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64


def info(name, elem=F, dims=("batch", 4)):
    return helper.make_tensor_value_info(name, elem, dims)


def n(op, inputs, outputs, name=None, **attributes):
    return helper.make_node(op, inputs, outputs, name=name or f"m.{outputs[0]}/{op}_0", **attributes)


def toy(nodes, inputs, outputs, constants=None):
    initialisers = [numpy_helper.from_array(np.asarray(a), k) for k, a in (constants or {}).items()]
    body = helper.make_graph(nodes, "toy", inputs, outputs, initialisers)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def results(model, **feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [value.tobytes() for value in session.run(None, feeds)]


def operators(model):
    return [node.op_type for node in model.graph.node]
