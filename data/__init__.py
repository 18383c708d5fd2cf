"""What the method eats: tasks, rows, draws and the unlabelled corpus. Knows no model and no orchestration."""
