"""One run per trial in TensorBoard, MLflow or Weights & Biases, on request; trackers only read the study."""
