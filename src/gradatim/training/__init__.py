"""Training on trees: packing and a trainer. All but settings is imported when it is first asked for."""

from typing import TYPE_CHECKING

from gradatim.lazy_names import lazy_names
from gradatim.training.settings import LoraSettings, TrainingOptions, TrainingSettings

if TYPE_CHECKING:
    from gradatim.training.adapters import check_lora_modules
    from gradatim.training.fit import TrainingResult, train
    from gradatim.training.packing import PackedRow, pack_row
    from gradatim.training.process_reward_model import load_process_reward_model
    from gradatim.training.rows import TrainingRow, build_row, plan_rows
    from gradatim.training.saving import save_model, save_process_reward_model
    from gradatim.training.trainer import TreeTrainer
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "PackedRow": "gradatim.training.packing",
            "TrainingResult": "gradatim.training.fit",
            "TrainingRow": "gradatim.training.rows",
            "TreeTrainer": "gradatim.training.trainer",
            "build_row": "gradatim.training.rows",
            "check_lora_modules": "gradatim.training.adapters",
            "load_process_reward_model": "gradatim.training.process_reward_model",
            "pack_row": "gradatim.training.packing",
            "plan_rows": "gradatim.training.rows",
            "save_model": "gradatim.training.saving",
            "save_process_reward_model": "gradatim.training.saving",
            "train": "gradatim.training.fit",
        },
    )

__all__ = [
    "LoraSettings",
    "PackedRow",
    "TrainingOptions",
    "TrainingResult",
    "TrainingRow",
    "TrainingSettings",
    "TreeTrainer",
    "build_row",
    "check_lora_modules",
    "load_process_reward_model",
    "pack_row",
    "plan_rows",
    "save_model",
    "save_process_reward_model",
    "train",
]
