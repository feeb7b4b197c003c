"""Training on trees: packing, objectives, and a trainer."""

from gradatim.training.adapters import check_lora_modules
from gradatim.training.fit import TrainingResult, train
from gradatim.training.packing import PackedRow, pack_row
from gradatim.training.process_reward_model import load_process_reward_model
from gradatim.training.rows import TrainingRow, build_row, plan_rows
from gradatim.training.saving import save_model, save_process_reward_model
from gradatim.training.settings import LoraSettings, TrainingSettings
from gradatim.training.trainer import TreeTrainer

__all__ = [
    "LoraSettings",
    "PackedRow",
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
