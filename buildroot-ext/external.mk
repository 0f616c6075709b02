include $(sort $(wildcard $(BR2_EXTERNAL_PYVORIN_PATH)/package/*/*.mk))
