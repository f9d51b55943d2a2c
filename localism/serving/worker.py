"""Runs inside the student's vLLM engine: a method that swaps the weights completely.

vLLM mixes this class into its worker (--worker-extension-cls) and calls it by name through
/collective_rpc. Its own reload_weights leaves one thing behind on the CPU: an output layer that is
tied to the embedding keeps a packed copy of the first model's values, because the checkpoint has
no tensor of its name. Measured with vLLM 0.32: logits off by more than 1, no warning.
"""

from typing import Any


class SwapWeights:
    """Mixed into vLLM's worker."""

    def swap_weights(self: Any, folder: str) -> None:
        """Load the checkpoint and pack again whatever keeps both a weight and a packed copy."""
        self.reload_weights(weights_path=folder)
        for layer in self.model_runner.get_model().modules():
            # Layers that were reloaded by name were packed by vLLM, and their weight emptied.
            if hasattr(layer, "cpu_linear") and layer.weight.numel():
                layer.quant_method.process_weights_after_loading(layer)
