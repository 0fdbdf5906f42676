"""The catalogue of networks, losses and metrics. Names only: listing it loads nothing."""

from utils.catalogue import Section

SECTIONS: dict[str, Section] = {
    "arch": Section(
        expects="torch.nn:Module",
        entries={
            "UNet": "models.unet:UNet",
            "DeepLabV3Plus": "models.deeplabv3plus:DeepLabV3Plus",
            "ConvNet": "models.convnet:ConvNet",
            "FCN": "models.fcn:FCN",
            "ResNet1d": "models.resnet1d:ResNet1d",
            "InceptionTime": "models.inceptiontime:InceptionTime",
            "LSTMFCN": "models.lstmfcn:LSTMFCN",
        },
        roots=("torchvision", "timm", "segmentation_models_pytorch"),
    ),
    "loss": Section(
        expects="torch.nn:Module",
        entries={
            "ce_loss": "models.losses:CrossEntropyLoss",
            "dice_loss": "models.losses:DiceLoss",
            "WeightedLoss": "models.losses:WeightedLoss",
        },
        roots=("torch.nn",),
        nested={"losses": "loss"},
    ),
    "metrics": Section(
        expects="base.base_metric:Metric",
        entries={
            "miou": "models.metrics:MeanIoU",
            "class_iou": "models.metrics:ClassIoU",
            "dice": "models.metrics:Dice",
            "accuracy": "models.metrics:Accuracy",
            "mean_accuracy": "models.metrics:MeanAccuracy",
            "precision": "models.metrics:Precision",
            "recall": "models.metrics:Recall",
            "f1": "models.metrics:F1",
        },
    ),
}
