"""The one exception that a person can fix.

Every layer raises it for bad input: a wrong file, option or value. The command line prints its sentence without a
traceback and exits with 2. Anything else that escapes is a fault of seqkit's own and exits with 1.
"""


class InputError(ValueError):
    """Input that its giver can mend, told in one sentence.

    The sentence has one shape: ``where: argument must rule, got value``, and at most one hint after it.
    """
