"""Versions of what a result depends on."""

import platform

import numpy as np
import sklearn
import skorch
import torch

import sksubnet


def versions() -> str:
    packages = (sksubnet, torch, skorch, sklearn, np)
    found = [f"{package.__name__} {package.__version__}" for package in packages]
    return ", ".join([*found, f"Python {platform.python_version()}"])
