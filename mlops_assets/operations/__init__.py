"""Operations on a running platform: train, promote, trace, replay, demo. They print nothing; `cli` imports them."""
