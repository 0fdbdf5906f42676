"""The registry of networks, losses and metrics. Names only: listing it loads nothing."""

from utils.registry import Section

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
            "ConvNet": "models.convnet:ConvNet",
            "FCN": "models.fcn:FCN",
            "ResNet1d": "models.resnet1d:ResNet1d",
            "InceptionTime": "models.inceptiontime:InceptionTime",
            "LSTMFCN": "models.lstmfcn:LSTMFCN",
        },
        roots=("torchvision", "timm", "segmentation_models_pytorch"),
        run_values={
            "segmentation_models_pytorch": {"classes": "num_classes"},
            "timm": {"num_classes": "num_classes", "in_chans": "in_channels"},
            "torchvision": {"num_classes": "num_classes"},
        },
        adapters={
            "segmentation_models_pytorch": "models.adapters:adapt_network",
            "torchvision.models.segmentation": "models.adapters:adapt_network",
        },
    ),
    "loss": Section(
        expects="torch.nn:Module",
        entries={
            "ce_loss": "models.losses:CrossEntropyLoss",
            "ohem_loss": "models.losses:OhemCrossEntropyLoss",
            "focal_loss": "models.losses:FocalLoss",
            "dice_loss": "models.losses:DiceLoss",
            "jaccard_loss": "models.losses:JaccardLoss",
            "tversky_loss": "models.losses:TverskyLoss",
            "lovasz_loss": "models.losses:LovaszLoss",
            "boundary_loss": "models.losses:BoundaryLoss",
            "bce_loss": "models.losses:BinaryCrossEntropyLoss",
            "focal_loss_with_sigmoid": "models.losses:focal_loss_with_sigmoid",
            "dice_loss_with_sigmoid": "models.losses:dice_loss_with_sigmoid",
            "jaccard_loss_with_sigmoid": "models.losses:jaccard_loss_with_sigmoid",
            "tversky_loss_with_sigmoid": "models.losses:tversky_loss_with_sigmoid",
            "lovasz_loss_with_sigmoid": "models.losses:lovasz_loss_with_sigmoid",
            "WeightedLoss": "models.losses:WeightedLoss",
        },
        roots=("torch.nn",),
        nested={"losses": "loss"},
        wrappers={"auxiliary": "models.losses.common:AuxiliaryLoss"},
    ),
    "metrics": Section(
        expects="base.base_metric:Metric",
        entries={
            "miou": "models.metrics.confusion:MeanIoU",
            "class_iou": "models.metrics.confusion:ClassIoU",
            "dice": "models.metrics.confusion:Dice",
            "accuracy": "models.metrics.confusion:Accuracy",
            "mean_accuracy": "models.metrics.confusion:MeanAccuracy",
            "precision": "models.metrics.confusion:Precision",
            "recall": "models.metrics.confusion:Recall",
            "f1": "models.metrics.confusion:F1",
            "macro_f1": "models.metrics.confusion:MacroF1",
            "balanced_accuracy": "models.metrics.confusion:BalancedAccuracy",
            "fw_iou": "models.metrics.confusion:FrequencyWeightedIoU",
            "top_k_accuracy": "models.metrics.top_k:TopKAccuracy",
            "boundary_iou": "models.metrics.boundary_iou:BoundaryIoU",
        },
    ),
}
