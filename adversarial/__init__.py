"""The method: games, objectives, penalties, update rules, schedules. Pure PyTorch, no files, no configs."""
