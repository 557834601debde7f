"""Other ways to train on a device's samples, really run: `lora` on the device alone, `split` between both sides."""
