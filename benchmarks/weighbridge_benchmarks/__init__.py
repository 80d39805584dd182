"""The suite: named real shapes, ceilings measured in the same run."""
