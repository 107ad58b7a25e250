"""One module per payment provider, each an implementation of `strongroom.rails.contract.Provider`."""
