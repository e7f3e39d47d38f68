"""sealegs: packages, ROS 2 data files, the command, and the extras. Version ranges here; what was tested is in constraints.txt."""

from glob import glob

from setuptools import find_packages, setup

# ROS 2 Jazzy as wheels, every message package by version because bare names resolve to a newer distribution. Where ROS 2 itself
# is installed, rclpy comes from there and this extra is not needed.
WHEELS = "python_version == '3.11' and sys_platform == 'linux'"  # what these exist for
ROS = [
    "ros-jazzy-rclpy==7.1.6",
    "ros-jazzy-rmw-fastrtps-cpp==8.4.3",
    "ros-jazzy-rosidl-dynamic-typesupport-fastrtps==0.1.0",
    "ros-jazzy-sensor-msgs==5.3.6",
    "ros-jazzy-nav-msgs==5.3.6",
    "ros-jazzy-diagnostic-msgs==5.3.6",
    "ros-jazzy-trajectory-msgs==5.3.6",
    "ros-jazzy-visualization-msgs==5.3.6",
    "ros-jazzy-std-srvs==5.3.6",
    "ros-jazzy-lifecycle-msgs==2.0.3",
]

setup(
    name="sealegs",
    version="0.1.0",
    description="Lets a robot find its legs again when its dynamics change",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(
        include=["controller*", "dynamics*", "native*", "planners*", "robots*"],
    ),
    package_data={
        "controller": ["weights/*.safetensors", "weights/*.json", "ros/*.xml"],
        "dynamics": ["*.c"],
        "robots": ["*.c", "vehicles/*.toml"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/sealegs"]),
        ("share/sealegs", ["package.xml"]),
        ("share/sealegs/launch", glob("launch/*.launch.py")),
        ("share/sealegs/params", glob("launch/params/*.yaml")),
    ],
    install_requires=[
        "torch>=2.6",
        "numpy>=1.26",
        "mujoco>=3.3",
        "pybullet>=3.2.6",
        "casadi>=3.6.4",
        "gymnasium>=1.1",
        "safetensors>=0.4",
        "tyro>=0.9",
        "rich>=13",
        "matplotlib>=3.8",
        "imageio>=2.34",
        "pillow>=10",
        "imageio-ffmpeg>=0.5",
        "tensorboard>=2.16",
    ],
    extras_require={
        "dev": ["pytest>=8", "ruff>=0.6", "pyright[nodejs]>=1.1.380", "import-linter>=2.0"],
        "bench": ["pytest-benchmark>=4", "pytorch-mppi==0.9.1"],
        "ros": [f"{name}; {WHEELS}" for name in ROS] + ["rosbags>=0.11", "mcap>=1.2", "pyyaml>=6"],
    },
    entry_points={
        "console_scripts": [
            "sealegs = controller.cli:main",
            "controller_node = controller.ros.__main__:controller",
            "robot_node = controller.ros.__main__:robot",
            "record_node = controller.ros.__main__:record",
        ],
    },
)
