"""Helpers that several tests share: frames built from plain values, handlers that write down what they are told."""
