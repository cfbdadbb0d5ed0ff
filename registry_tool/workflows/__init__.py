"""workflows: the stories, read aloud: load, check, measure, judge, write. No click, no printing."""
