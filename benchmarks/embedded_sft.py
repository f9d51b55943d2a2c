"""Student + accepted examples -> trained student: bar 5 of embedded.py, in a process of its own.

python benchmarks/embedded_sft.py STUDENT rows.json OUT SEED
"""

import json
import os
import sys
from pathlib import Path

EPOCHS = 4
BATCH = 8
LEARNING_RATE = 1e-3


def main() -> None:
    """Train on prompt and completion; the loss is on the completion alone."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    student, rows_path, out = (Path(argument) for argument in sys.argv[1:4])
    rows = [
        {
            "prompt": [{"role": "user", "content": row["instruction"]}],
            "completion": [{"role": "assistant", "content": row["response"]}],
        }
        for row in json.loads(rows_path.read_text())
    ]
    config = SFTConfig(
        output_dir=str(out),
        num_train_epochs=float(os.environ.get("EPOCHS", EPOCHS)),
        per_device_train_batch_size=BATCH,
        learning_rate=float(os.environ.get("RATE", LEARNING_RATE)),
        lr_scheduler_type="cosine",
        warmup_steps=10,
        max_length=512,
        seed=int(sys.argv[4]),
        save_strategy="no",
        logging_strategy="epoch",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        weight_decay=0.0,
    )
    trainer = SFTTrainer(model=str(student), args=config, train_dataset=Dataset.from_list(rows))
    trainer.train()
    trainer.save_model(str(out / "trained"))


if __name__ == "__main__":
    main()
