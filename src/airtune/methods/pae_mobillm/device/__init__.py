"""The device's side: reads its frozen backbone, keeps its labels, sends every sample once. START: `device`."""
