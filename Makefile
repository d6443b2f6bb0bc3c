# Aliases: the work is in scripts/, which needs no make.
CHORES = demo test test-all test-lab lint format coverage bench install

.PHONY: $(CHORES)
$(CHORES):
	@scripts/$@
