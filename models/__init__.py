"""The catalogue of networks, losses and metrics. Names only: listing it loads nothing."""

from utils.catalogue import Section

SECTIONS: dict[str, Section] = {
    "arch": Section(
        expects="torch.nn:Module",
        entries={
            "UNet": "models.unet:UNet",
            "UNetPlus": "models.unetplus:UNetPlus",
            "DeepLabV3Plus": "models.deeplabv3plus:DeepLabV3Plus",
            "PSPNet": "models.pspnet:PSPNet",
            "BiSeNet": "models.bisenet:BiSeNet",
            "ICNet": "models.icnet:ICNet",
            "EncDec": "models.encdec:EncDec",
        },
        roots=("torchvision", "timm", "segmentation_models_pytorch"),
        renamed={"segmentation_models_pytorch": {"classes": "num_classes"}},
        adapters={
            "segmentation_models_pytorch": "models.adapters:adapt_padded",
            "torchvision.models.segmentation": "models.adapters:adapt_torchvision",
        },
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
        companions={"auxiliary": "models.auxiliary:AuxiliaryLoss"},
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
