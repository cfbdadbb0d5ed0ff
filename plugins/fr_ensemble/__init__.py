"""fr_ensemble: the first-party plugin for deep ensembles of full-reference video-quality regressors."""
