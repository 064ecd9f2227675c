"""Objectives of training and evaluation."""
