"""What runs a checkpoint: one protocol, ONNX Runtime on processors, torch on accelerators and in training."""
